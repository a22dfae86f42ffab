"""Topics are there where the artifact has something to say on them."""

from __future__ import annotations

import importlib

import pytest

from mmfusion_ros import topics

PLAIN = {"~/fused/image", "~/fused/camera_info", "~/status"}


@pytest.mark.parametrize(
    ("outputs", "more"),
    [
        ((), set()),
        (("registered_thermal",), {"~/registered_thermal/image"}),
        (("saliency",), {"~/saliency/mask", "~/overlay/image"}),
        (("boxes",), {"~/detections", "~/overlay/image"}),
        (
            ("boxes", "box_depth"),
            {"~/detections", "~/overlay/image", "~/detections_3d", "~/markers"},
        ),
    ],
)
def test_topics_of_an_artifact(outputs, more):
    found = {topic.name for topic in topics.PER_FRAME if topic.published_with(outputs)}
    assert found == PLAIN | more


@pytest.mark.ros
@pytest.mark.parametrize("topic", topics.PUBLISHED, ids=lambda topic: topic.name)
def test_types_exist(topic):
    package, kind, name = topic.type.split("/")
    module = pytest.importorskip(f"{package}.{kind}", reason=f"{package} is not installed")
    assert hasattr(importlib.import_module(module.__name__), name)


@pytest.mark.parametrize("topic", topics.PUBLISHED, ids=lambda topic: topic.name)
def test_their_packages_are_dependencies(topic, repo_root):
    package = topic.type.split("/")[0]
    manifest = (repo_root / "ros2_ws/src/mmfusion_ros/package.xml").read_text()
    assert f"<exec_depend>{package}</exec_depend>" in manifest
