"""Our messages have the fields we promise and the wire format of everyone else's."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")
vision = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not built")
mmfusion_msgs = pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")

# Of the vision_msgs 4.1.1 release.
HASHES = {
    "Detection2DArray": "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
    "Detection2D": "RIHS01_0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea",
    "Detection3DArray": "RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    "LabelInfo": "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    "VisionInfo": "RIHS01_95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284",
}


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("interfaces", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("name", HASHES)
def test_generated_type_hash_is_that_of_the_release(name):
    described = Path(sys.prefix) / "share" / "vision_msgs" / "msg" / f"{name}.json"
    if not described.is_file():
        pytest.skip("vision_msgs comes from the ROS distribution, not from our underlay")
    hashes = {
        entry["type_name"]: entry["hash_string"]
        for entry in json.loads(described.read_text())["type_hashes"]
    }
    assert hashes[f"vision_msgs/msg/{name}"] == HASHES[name]


@pytest.mark.parametrize("name", HASHES)
def test_type_hash_on_the_wire_is_that_of_the_release(node, name):
    publisher = node.create_publisher(getattr(vision, name), "detections", 1)
    (info,) = node.get_publishers_info_by_topic("detections")
    assert str(info.topic_type_hash) == HASHES[name]
    node.destroy_publisher(publisher)


def test_our_underlay_has_the_sixteen_messages(repo_root):
    folder = repo_root / "ros2_ws" / "underlay" / "vision_msgs" / "msg"
    names = {path.stem for path in folder.glob("*.msg")}
    assert len(names) == 16
    assert names <= set(dir(vision))


def test_modality_status_fields():
    assert mmfusion_msgs.ModalityStatus.get_fields_and_field_types() == {
        "name": "string",
        "used": "boolean",
        "reason": "string",
        "age": "double",
    }


def test_frame_status_fields():
    assert mmfusion_msgs.FrameStatus.get_fields_and_field_types() == {
        "header": "std_msgs/Header",
        "artifact": "string",
        "backend": "string",
        "precision": "string",
        "modalities": "sequence<mmfusion_msgs/ModalityStatus>",
        "stage_names": "sequence<string>",
        "stage_durations": "sequence<double>",
        "latency": "double",
        "quality_names": "sequence<string>",
        "quality_values": "sequence<double>",
        "sets_dropped": "uint64",
    }


def test_frame_status_survives_serialisation():
    from rclpy.serialization import deserialize_message, serialize_message

    sent = mmfusion_msgs.FrameStatus(
        artifact="tiny",
        backend="onnxruntime",
        precision="fp32",
        modalities=[
            mmfusion_msgs.ModalityStatus(name="rgb", used=True, age=0.0),
            mmfusion_msgs.ModalityStatus(name="thermal", reason="frozen", age=math.nan),
        ],
        stage_names=["infer"],
        stage_durations=[0.25],
        latency=math.nan,
        quality_names=["vif"],
        quality_values=[0.5],
        sets_dropped=2**64 - 1,
    )
    received = deserialize_message(serialize_message(sent), mmfusion_msgs.FrameStatus)
    assert [status.name for status in received.modalities] == ["rgb", "thermal"]
    assert received.modalities[1].reason == "frozen"
    assert math.isnan(received.modalities[1].age)
    assert math.isnan(received.latency)
    assert list(received.stage_durations) == [0.25]
    assert received.sets_dropped == 2**64 - 1
