"""The selective scan, form against form: CPU time and peak memory.

    python benchmarks/selective_scan.py
    python benchmarks/selective_scan.py --share [ARTIFACT ...] [--rounds 9]

Forms: the plain sequential loop in PyTorch, our chunked scan in PyTorch, our ONNX function in
ONNX Runtime, and a plain C++ loop compiled with -O2 (the named baseline). Times are the least
CPU time of a few interleaved rounds on one thread; memory is the growth of a fresh process's
peak beyond its inputs and output.

With ``--share``: what the scans take of whole artifacts in ONNX Runtime. Each graph runs in turns
with one in which a scan only adds up its inputs, so that all that leads to it is computed still.
No operator, however well compiled, would take less: the share is the most that one could save.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _peak_memory import growth, peak_megabytes

if TYPE_CHECKING:
    import onnx
    import onnxruntime

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "selective_scan.json"
SHARE_RESULT = HERE / "results" / "selective_scan_share.json"
BUNDLED = HERE.parent / "artifacts"
SCANNING = ("rgbdt_tiny_640x480", "s4fusion_tiny_640x480")
ROUNDS = 3
NAMES = ("u", "step", "a", "b", "c", "d")
# (steps, directions, channels, states): scans of the networks at 480x640.
CASES = {
    "s4fusion level 0, encoder": (34560, 8, 72, 12),
    "s4fusion level 1, fusion": (17280, 4, 144, 18),
    "s4fusion_tiny level 0, half size": (8640, 8, 36, 4),
}
BASELINE = "naive compiled (C++ -O2)"


def draw(steps: int, directions: int, channels: int, states: int) -> dict[str, np.ndarray]:
    """Inputs with the spread of a trained network's."""
    rng = np.random.default_rng(0)
    shapes = {
        "u": (1, steps, directions, channels),
        "step": (1, steps, directions, channels),
        "a": (directions, channels, states),
        "b": (1, steps, directions, states),
        "c": (1, steps, directions, states),
        "d": (directions, channels),
    }
    inputs = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    inputs["step"] = np.exp(0.5 * inputs["step"] - 4)
    inputs["a"] = -np.exp(np.log(np.arange(1, states + 1, dtype=np.float32)) + 0.1 * inputs["a"])
    return inputs


def compiled() -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """The C++ loop."""
    library = Path(tempfile.mkdtemp()) / "naive_scan.so"
    source = HERE / "_naive_scan.cpp"
    subprocess.run(["c++", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
    function = ctypes.CDLL(str(library)).naive_scan

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        _, steps, directions, channels = inputs["u"].shape
        states = inputs["a"].shape[2]
        y, state = np.empty_like(inputs["u"]), np.empty_like(inputs["a"])
        arrays = [*(inputs[name] for name in NAMES), y, state]
        sizes = map(ctypes.c_size_t, (steps, directions, channels, states))
        function(*(array.ctypes.data_as(ctypes.c_void_p) for array in arrays), *sizes)
        return y

    return run


def eager(function_name: str) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """One of the PyTorch forms."""
    import torch  # noqa: PLC0415

    from mmfusion.layers import selective_scan  # noqa: PLC0415

    torch.set_num_threads(1)
    function = getattr(selective_scan, function_name)

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            y: np.ndarray = function(*(torch.from_numpy(inputs[name]) for name in NAMES)).numpy()
        return y

    return run


def onnx_runtime() -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Our ONNX function."""
    import onnxruntime  # noqa: PLC0415
    from onnx import TensorProto, helper  # noqa: PLC0415

    from mmfusion.layers.selective_scan_onnx import OPSET, add_selective_scan  # noqa: PLC0415

    ranks = dict(zip(NAMES, (4, 4, 3, 4, 4, 2), strict=True))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
        for name, rank in ranks.items()
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)
    node = helper.make_node("SelectiveScan", NAMES, ["y"], domain="mmfusion")
    graph = helper.make_graph([node], "scan", values, [y])
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    add_selective_scan(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        output: np.ndarray = session.run(None, inputs)[0]
        return output

    return run


FORMS: dict[str, Callable[[], Callable[[dict[str, np.ndarray]], np.ndarray]]] = {
    BASELINE: compiled,
    "plain loop (PyTorch)": lambda: eager("selective_scan_reference"),
    "chunked (PyTorch)": lambda: eager("selective_scan"),
    "ONNX Scan (onnxruntime)": onnx_runtime,
}


def print_peak(form: str, case: str) -> None:
    """Body of the fresh process of `peak_megabytes`."""
    run = FORMS[form]()
    run(draw(32, *CASES[case][1:]))
    inputs = draw(*CASES[case])
    # Inputs are drawn with larger temporaries: what counts is growth over the resident size.
    output: list[np.ndarray] = []
    grown = growth(lambda: output.append(run(inputs)))
    print(max(0.0, grown - output[0].nbytes / 1e6))


def main() -> None:
    """Measure and print."""
    forms = {name: make() for name, make in FORMS.items()}
    record: dict[str, dict[str, dict[str, float]]] = {}
    for case, shape in CASES.items():
        inputs = draw(*shape)
        expected = forms[BASELINE](inputs)
        seconds = dict.fromkeys(forms, float("inf"))
        for _ in range(ROUNDS):
            for name, run in forms.items():
                start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
                output = run(inputs)
                spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - start
                seconds[name] = min(seconds[name], spent)
                np.testing.assert_allclose(output, expected, atol=2e-4, rtol=1e-3)
        print(f"\n{case}: T, K, D, S = {shape}")
        print(f"{'form':28}{'CPU s':>9}{'ratio':>8}{'peak MB':>10}")
        record[case] = {}
        for name, spent in seconds.items():
            ratio, peak = spent / seconds[BASELINE], peak_megabytes(__file__, name, case)
            record[case][name] = {"cpu_s": spent, "ratio": ratio, "peak_mb": peak}
            print(f"{name:28}{spent:9.3f}{ratio:8.2f}{peak:10.0f}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


def without_scan(model: onnx.ModelProto) -> None:
    """Let every scan add up u, step, d and the first states of b and c: next to no time.

    So what computes these is not left out; ``a`` is a weight.
    """
    from onnx import helper  # noqa: PLC0415

    (scan,) = (function for function in model.functions if function.name == "SelectiveScan")
    nodes = [
        helper.make_node("Constant", [], ["first"], value_ints=[0]),
        helper.make_node("Constant", [], ["second"], value_ints=[1]),
        helper.make_node("Constant", [], ["last"], value_ints=[-1]),
        # By state where the others are by channel: the first state stands for all.
        *(
            helper.make_node("Slice", [name, "first", "second", "last"], [f"{name}_first"])
            for name in "bc"
        ),
        helper.make_node("Sum", ["u", "step", "b_first", "c_first", "d"], ["y"]),
    ]
    del scan.node[:]
    scan.node.extend(nodes)


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """In ONNX Runtime on one thread, as the robot's engine but for that."""
    import onnxruntime  # noqa: PLC0415

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


def share(artifact: Path, rounds: int) -> dict[str, Any]:
    """CPU seconds of one run with and without scans, and the median share that scans take."""
    import onnx  # noqa: PLC0415

    model = onnx.load(artifact / "graph.onnx")
    scans = sum(node.op_type == "SelectiveScan" for node in model.graph.node)
    if not scans:
        raise SystemExit(f"selective_scan: {artifact} has no selective scan")
    sessions = [session_of(model)]
    without_scan(model)
    sessions.append(session_of(model))
    rng = np.random.default_rng(0)
    inputs = {
        value.name: rng.integers(0, 256, value.shape, np.uint8)
        if "uint8" in value.type
        else np.ones(value.shape, np.float32)
        for value in sessions[0].get_inputs()
    }
    seconds = np.empty((rounds, len(sessions)))
    for number in range(-1, rounds):  # the first is thrown away: it allocates
        for place, session in enumerate(sessions):
            started = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            session.run(None, inputs)
            seconds[number, place] = resource.getrusage(resource.RUSAGE_SELF).ru_utime - started
    return {
        "scans": scans,
        "cpu_s": statistics.median(seconds[:, 0]),
        "cpu_s_without": statistics.median(seconds[:, 1]),
        "share": statistics.median(1 - seconds[:, 1] / seconds[:, 0]),
    }


def print_shares(arguments: list[str]) -> None:
    """Measure and print what scans take of artifacts."""
    from mmfusion_ros.core.engines.precision_gate import machine_name  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="selective_scan.py --share")
    parser.add_argument(
        "artifacts", type=Path, nargs="*", default=[BUNDLED / name for name in SCANNING]
    )
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    record: dict[str, Any] = {
        "processor": machine_name(),
        "rounds": options.rounds,
        "load_1min": os.getloadavg()[0],
        "artifacts": {},
    }
    for artifact in options.artifacts:
        entry = record["artifacts"][artifact.name] = share(artifact, options.rounds)
        print(
            f"{artifact.name}: {entry['scans']} scans take {entry['share']:.2f} of "
            f"{entry['cpu_s']:.3f} s of CPU time; without them {entry['cpu_s_without']:.3f} s"
        )
    SHARE_RESULT.parent.mkdir(exist_ok=True)
    SHARE_RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(*sys.argv[2:])
    elif sys.argv[1:2] == ["--share"]:
        print_shares(sys.argv[2:])
    else:
        main()
