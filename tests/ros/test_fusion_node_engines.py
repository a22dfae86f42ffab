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


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def rig(tmp_path):
    return write_rig(tmp_path / "rig.yaml", SIZE)


def reduced(folder, off_by):
    """An artifact whose int8 graph is brighter by this much, and sample frames of it."""
    write_artifact(folder / "tiny")
    tolerances = {"fused": {"psnr_db": 45.0}}
    artifact = add_reduced_graph(folder / "tiny", off_by=off_by, tolerances=tolerances)
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
