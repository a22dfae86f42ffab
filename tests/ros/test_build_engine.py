"""The command builds an engine, or says in a line why it cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest
from artifacts import write_artifact
from cuda_double import DriverDouble, TensorRTDouble

from mmfusion_ros import build_engine
from mmfusion_ros.core.engines import tensorrt as backend

pytest.importorskip("onnx")


@pytest.fixture
def folder(tmp_path):
    return write_artifact(tmp_path / "small")


@pytest.fixture
def gpu(monkeypatch):
    """A device in this process's memory."""
    driver = DriverDouble()
    library = TensorRTDouble(driver)
    monkeypatch.setattr(backend, "cuda_devices", lambda: ([driver.gpu], ""))
    monkeypatch.setattr(backend, "import_tensorrt", lambda: library)
    monkeypatch.setattr(backend, "CudaRuntime", lambda: driver)
    return library


def test_it_builds_once_and_names_the_file(folder, tmp_path, gpu, capsys):
    cache = tmp_path / "cache"
    for _ in range(2):
        assert build_engine.main([str(folder), "--engine-cache", str(cache)]) == 0
        (engine,) = cache.glob("*.engine")
        assert capsys.readouterr().out.startswith(f"{engine} runs small in fp32")
    assert gpu.builds == 1
    assert not gpu.driver.leaks


def test_the_device_can_be_chosen(folder, tmp_path, gpu, capsys):
    arguments = [str(folder), "--engine-cache", str(tmp_path), "--device-id", "1"]
    assert build_engine.main(arguments) == 1
    assert "device_id is 1, but the GPUs that CUDA sees are 0 Orin;" in capsys.readouterr().err
    assert not gpu.builds


def test_other_gpus_can_be_served(folder, tmp_path, gpu):
    assert (
        build_engine.main([str(folder), "--engine-cache", str(tmp_path), "--hardware-compatible"])
        == 0
    )
    assert gpu.configs[0].hardware_compatibility_level == "SAME_COMPUTE_CAPABILITY"


def test_ctrl_c_ends_it(folder, tmp_path, gpu, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm.update", interrupted)
    assert build_engine.main([str(folder), "--engine-cache", str(tmp_path / "cache")]) == 130
    assert not list(tmp_path.glob("cache/*.engine"))


def test_what_cannot_be_built_is_a_line_on_stderr(folder, tmp_path, gpu, capsys):
    gpu.build_errors = ["Could not find any implementation for node head: no tactic"]
    assert build_engine.main([str(folder), "--engine-cache", str(tmp_path / "cache")]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert "build_engine: TensorRT 10.3.0 cannot build an engine of the graph" in err
    assert "Traceback" not in err


def test_reduced_precision_that_the_artifact_lacks_is_refused(folder, tmp_path, gpu, capsys):
    assert (
        build_engine.main([str(folder), "--precision", "fp16", "--engine-cache", str(tmp_path)])
        == 1
    )
    assert "has no fp16 graph" in capsys.readouterr().err


def test_here_without_a_gpu_it_says_so(folder, monkeypatch, capsys):
    monkeypatch.setattr(backend, "cuda_devices", lambda: ([], "no CUDA driver"))
    assert build_engine.main([str(folder)]) == 1
    assert "needs an NVIDIA GPU and its driver: no CUDA driver" in capsys.readouterr().err


def test_a_missing_artifact_is_told(tmp_path, capsys):
    assert build_engine.main([str(tmp_path / "none")]) == 1
    assert "is not an artifact" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom mmfusion_ros import build_engine\n"
        "try: build_engine.main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(' '.join({'onnx', 'onnxruntime', 'tqdm', 'cuda'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stderr.strip() == ""
    assert "build_engine" in result.stdout
