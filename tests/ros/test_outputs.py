"""A topic that cannot be built costs itself only."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not built")
pytest.importorskip("onnx", reason="onnx is not installed")

from artifacts import CANDIDATES, write_artifact, write_rig
from rclpy.clock import Clock
from sensor_msgs.msg import CameraInfo

from mmfusion_ros import outputs, topics
from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import load_rig

SIZE = (48, 64)
ENGINE = SimpleNamespace(backend="none", precision="none")


class Node:
    """As much of a node as publishing needs; everybody listens to everything."""

    def __init__(self) -> None:
        self.sent: dict[str, list] = {}
        self.errors: list[str] = []

    def declare_parameter(self, _name, default, _descriptor):
        return SimpleNamespace(value=default)

    def resolve_topic_name(self, name):
        return name.replace("~", "/node")

    def create_lifecycle_publisher(self, _type, name, _qos, **_options):
        sent = self.sent.setdefault(name, [])
        return SimpleNamespace(publish=sent.append, get_subscription_count=lambda: 1)

    def get_clock(self) -> Clock:
        return Clock()

    def get_logger(self):
        return SimpleNamespace(error=self.errors.append)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def published(node, tmp_path) -> outputs.Outputs:
    artifact = open_artifact(write_artifact(tmp_path / "all", saliency=True, detections=True))
    return outputs.Outputs(node, artifact, load_rig(write_rig(tmp_path / "rig.yaml", SIZE)))


def results() -> Results:
    image = SourceImage(bytes(3 * SIZE[0] * SIZE[1]), *SIZE, "rgb8", 3 * SIZE[1])
    none = Companion(None, Absence.LATE, None)
    first = {name: array[:2] for name, array in CANDIDATES.items()}
    return Results(
        frames=FrameSet(Frame(Modality.RGB, 1_000, "rgb_frame", image), none, none),
        fused=np.zeros((*SIZE, 3), np.uint8),
        registered_thermal=np.zeros(SIZE, np.uint8),
        thermal_range=(0.0, 1.0),
        present=frozenset({Modality.RGB}),
        stages={},
        problems={},
        saliency=np.zeros(SIZE, np.uint8),
        detections=Detections(
            first["boxes"], first["scores"], first["classes"], first["box_depth"]
        ),
    )


def test_all_others_are_sent_and_the_failure_is_logged_once(node, published, monkeypatch):
    def fail(*_):
        raise RuntimeError("of all things")

    monkeypatch.setattr(outputs, "place", fail)
    for _ in range(3):
        published.publish(results(), ENGINE, 0)
    failing = {topics.DETECTIONS_3D.name, topics.MARKERS.name}
    assert {name: len(sent) for name, sent in node.sent.items()} == {
        topic.name: 0 if topic.name in failing else 3 for topic in topics.PER_FRAME
    }
    assert sorted(node.errors) == [
        f"{name} cannot be built and is left out: RuntimeError('of all things')"
        for name in sorted(failing)
    ]


@pytest.mark.parametrize("distortion", [[0.1] * 3, [0.1] * 6, [float("nan")] * 5])
def test_a_camera_that_tells_nonsense_is_not_believed(node, published, distortion):
    matrix = [32.0, 0.0, 32.0, 0.0, 32.0, 24.0, 0.0, 0.0, 1.0]
    published.rgb_info = CameraInfo(
        height=SIZE[0], width=SIZE[1], distortion_model="plumb_bob", k=matrix, d=distortion
    )
    published.publish(results(), ENGINE, 0)
    assert len(node.sent[topics.STATUS.name]) == 1
    assert node.errors == []
    (message,) = node.sent[topics.DETECTIONS_3D.name]
    # By the rig's focal length.
    assert message.detections[0].bbox.size.x == pytest.approx(16 / 64 * 3)


def test_no_publisher_is_left_where_one_is_refused(node, tmp_path):
    artifact = open_artifact(write_artifact(tmp_path / "a", saliency=True))

    def declare_parameter(name, default, _descriptor):
        wrong = name == "qos_overrides./node/status.publisher.depth"
        return SimpleNamespace(value=0 if wrong else default)

    node.declare_parameter = declare_parameter
    with pytest.raises(MmfusionError, match="depth is 0; expected at least 1"):
        outputs.Outputs(node, artifact, load_rig(write_rig(tmp_path / "rig.yaml")))
    assert node.sent == {}
