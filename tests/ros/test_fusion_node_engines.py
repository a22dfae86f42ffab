"""Other engines than the usual one, in a node of its own behind real DDS."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")
pytest.importorskip("onnx", reason="onnx is not installed")

from artifacts import add_reduced_graph, write_artifact, write_rig
from diagnostic_msgs.msg import DiagnosticStatus
from nodes import MS, PATIENT, SECOND, SIZE, Peer, node_process, pictures, pixels

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines.sample_frames import SampleFrames, write_sample_frames
from mmfusion_ros.core.guarded_pipeline import BACK_OFF


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def rig(tmp_path):
    return write_rig(tmp_path / "rig.yaml", SIZE)


def reduced(folder, off_by, fails_from=None):
    """An artifact whose int8 graph is brighter by this much, and sample frames of it."""
    write_artifact(folder / "tiny")
    artifact = add_reduced_graph(
        folder / "tiny",
        off_by=off_by,
        tolerances={"fused": {"psnr_db": 45.0}},
        graph_of=write_artifact(folder / "int8", fails_from=fails_from),
    )
    inputs = open_artifact(artifact).inputs
    frame = {name: np.zeros(spec.shape, spec.dtype) for name, spec in inputs.items()}
    write_sample_frames(folder / "f.npz", open_artifact(artifact), SampleFrames.of([frame]))
    return artifact, {"engine_samples": folder / "f.npz", "engine_cache": folder / "cache"}


def fused_and_status(peer):
    """The picture and the status of a set, and what is expected of a graph in fp32."""
    peer.advertise()
    peer.listen("fused/image", "status")
    stamp = peer.warm_up(1000 * SECOND, **pictures(0)) + 12_345_678 + MS
    sent = pictures(1)
    peer.send(stamp, **sent)
    added = sent["rgb"].astype(int) + (sent["thermal"] & 0xFF)[..., None]
    expected = np.minimum(added, 255).astype(np.uint8)
    return pixels(peer.got("fused/image", stamp)), peer.got("status", stamp), expected


def values(status):
    return {entry.key: entry.value for entry in status.values}


def test_openvino_runs_the_graph(peer, rig, tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    artifact = write_artifact(tmp_path / "tiny")
    with node_process(artifact, rig, tmp_path / "log", backend="openvino", **PATIENT):
        fused, status, expected = fused_and_status(peer)
        np.testing.assert_array_equal(fused, expected)
        assert (status.backend, status.precision) == ("openvino", "fp32")
        peer.diagnosed("engine", DiagnosticStatus.OK, "openvino runs tiny")


def test_what_reduced_precision_was_accepted_on_is_told(peer, rig, tmp_path):
    artifact, options = reduced(tmp_path, off_by=1)
    options |= {"backend": "onnxruntime", "precision": "int8"}
    with node_process(artifact, rig, tmp_path / "log", **options, **PATIENT):
        fused, status, expected = fused_and_status(peer)
        np.testing.assert_array_equal(fused, np.minimum(expected.astype(int) + 1, 255))
        assert (status.backend, status.precision) == ("onnxruntime", "int8")
        told = values(peer.diagnosed("engine", DiagnosticStatus.OK, "onnxruntime runs tiny"))
        assert told["fused_psnr_db"] == "48.13 (limit 45)"


def test_a_fallback_says_that_it_is_one_and_why(peer, rig, tmp_path):
    artifact, options = reduced(tmp_path, off_by=9)
    options |= {"backend": "onnxruntime", "precision": "int8", "engine_fallback": "onnxruntime"}
    log = tmp_path / "log"
    with node_process(artifact, rig, log, **options, **PATIENT):
        fused, status, expected = fused_and_status(peer)
        np.testing.assert_array_equal(fused, expected)
        assert (status.backend, status.precision) == ("onnxruntime", "fp32")
        told = peer.diagnosed("engine", DiagnosticStatus.WARN, "instead of onnxruntime int8")
        assert "psnr_db 29.05, expected at least 45" in told.message
    assert "onnxruntime instead of onnxruntime int8" in log.read_text()


def test_an_engine_that_goes_on_failing_in_flight_gives_way_to_the_fallback(peer, rig, tmp_path):
    """It fails after two frames of each opening; the node has its patience with it all the same."""
    artifact, options = reduced(tmp_path, off_by=1, fails_from=2)
    options |= {"backend": "onnxruntime", "precision": "int8", "engine_fallback": "onnxruntime"}
    options["frozen_after_ms"] = 0.0  # the cameras show one picture all the time
    log = tmp_path / "log"
    with node_process(artifact, rig, log, **options, **PATIENT):
        peer.advertise()
        peer.listen("fused/image", "status")
        peer.matched()
        sent = pictures(1)
        stamp, told = 1000 * SECOND, set()

        def gave_way():
            nonlocal stamp
            stamp += 100 * MS
            peer.send(stamp, **sent)
            for _ in range(5):
                peer.executor.spin_once(timeout_sec=0.02)
            engine = peer.diagnostics.get("engine", DiagnosticStatus())
            told.add((engine.level, engine.message.partition(": ")[0]))
            return engine if "instead of" in engine.message else None

        engine = peer.until(gave_way, "the fallback")
        assert engine.level == DiagnosticStatus.WARN
        assert engine.message.startswith(
            "onnxruntime runs tiny instead of onnxruntime int8: onnxruntime failed: "
        )
        assert (DiagnosticStatus.ERROR, "reopening") in told
        assert (values(engine)["backend"], values(engine)["precision"]) == ("onnxruntime", "fp32")

        added = sent["rgb"].astype(int) + (sent["thermal"] & 0xFF)[..., None]
        fused = peer.received["fused/image"]
        by_first = [
            pixels(fused[stamp])
            for stamp, status in peer.received["status"].items()
            if status.precision == "int8" and stamp in fused
        ]
        assert any(np.array_equal(picture, np.minimum(added + 1, 255)) for picture in by_first)
        # The fallback goes on where the other would have failed five times.
        for _ in range(10):
            stamp += 100 * MS
            peer.send(stamp, **sent)
            status = peer.got("status", stamp)
            assert (status.backend, status.precision) == ("onnxruntime", "fp32")
            picture = pixels(peer.got("fused/image", stamp))
            np.testing.assert_array_equal(picture, np.minimum(added, 255))
        engine = peer.diagnosed("engine", DiagnosticStatus.WARN, "instead of onnxruntime int8")
        assert values(engine)["failures"] == str(len(BACK_OFF) + 1)
    told = log.read_text()
    assert told.count("opening it again") == len(BACK_OFF) + 1
    assert told.count("onnxruntime instead of onnxruntime int8: onnxruntime failed") == 1
    assert "stays closed" not in told
