"""Benchmarks for a GPU say so where there is none; their own code runs on a CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = pytest.mark.torch


def run(repo_root, script, *arguments):
    return subprocess.run(
        [sys.executable, repo_root / "benchmarks" / "gpu" / script, *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def bundled(repo_root):
    name = "rgbdt_tiny_640x480"
    return str(repo_root / "compositions" / f"{name}.yaml"), str(repo_root / "artifacts" / name)


@pytest.mark.parametrize("script", ["networks.py", "engines.py", "selective_scan.py"])
def test_without_a_gpu(repo_root, script):
    result = run(repo_root, script, *(bundled(repo_root) if script == "engines.py" else ()))
    assert result.returncode == 1
    assert re.fullmatch(r"needs an NVIDIA GPU that PyTorch can use .*\n", result.stderr)


def test_networks_are_compared(repo_root):
    result = run(
        repo_root, "networks.py", "haf_mobilenetv3_small", "--cpu", "--rounds", "1", "--no-compile"
    )
    assert result.returncode == 0, result.stderr
    head, *rows = result.stdout.splitlines()
    assert re.fullmatch(r"haf_mobilenetv3_small, 384x384, floor [\d.]+ ms", head)
    assert [row.split("p50")[0].strip() for row in rows] == ["eager fp16", "eager fp32"]
    assert rows[0].endswith("1.00 x eager fp16")


def test_engines_are_compared(repo_root):
    result = run(
        repo_root, "engines.py", *bundled(repo_root), "--cpu", "--rounds", "1", "--no-compile"
    )
    assert result.returncode == 0, result.stderr
    assert "tensorrt fp16: left out: backend tensorrt needs an NVIDIA GPU" in result.stdout
    assert "tensorrt fp32 by torch_tensorrt: left out: torch_tensorrt " in result.stdout
    rows = [row.split("p50")[0].strip() for row in result.stdout.splitlines() if "p50" in row]
    assert rows == ["torch eager fp32", "onnxruntime CPUExecutionProvider"]


def test_scans_are_compared(repo_root):
    result = run(repo_root, "selective_scan.py", "--cpu", "--rounds", "1")
    assert result.returncode == 0, result.stderr
    rows = [row.split("p50")[0].strip() for row in result.stdout.splitlines() if "p50" in row]
    assert rows == ["chunks of operators fp32", "step by step fp32", "chunks of operators fp32"] * 3
    assert "1.00 x chunks of operators fp32" in result.stdout
