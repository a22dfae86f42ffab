"""The player in a process of its own, heard over real DDS."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")

from bags import PERIOD, cameras, pictures, write_bag
from nodes import MS, PATIENCE_S, Peer
from sensor_msgs.msg import CameraInfo, Image

from mmfusion_ros.messages import stamp_ns

OFFSETS = {"rgb": 0, "depth": 4 * MS, "thermal": -3 * MS}
COUNT = 6


@pytest.fixture
def peer():
    peer = Peer("/player_test")
    yield peer
    peer.close()


@pytest.fixture
def recording(tmp_path):
    """Six shots, thermal in three of them; each pixel tells the shot."""
    rows = ["stem,rgb_ns,depth_ns,thermal_ns"]
    for name in OFFSETS:
        (tmp_path / name).mkdir()
    for index in range(COUNT):
        start = 10**18 + index * 20 * MS
        rows.append(f"{index},{start},{start + OFFSETS['depth']},{start + OFFSETS['thermal']}")
        kinds = {"rgb": (np.uint8, (8, 12, 3)), "depth": (np.uint16, (8, 12))}
        if index % 2:
            kinds["thermal"] = (np.uint16, (4, 6))
        for name, (kind, shape) in kinds.items():
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), np.full(shape, index, kind))
    (tmp_path / "stamps.csv").write_text("\n".join(rows))
    camera = "{width: 12, height: 8, K: [10, 0, 5.5, 0, 10, 3.5, 0, 0, 1], D: [0, 0, 0, 0, 0]}"
    (tmp_path / "cameras.yaml").write_text(f"rgb: {camera}\ndepth: {camera}\n")
    return tmp_path


@contextlib.contextmanager
def player(*arguments, program=("-m", "mmfusion_ros.camera_player")):
    command = [sys.executable, *program, *map(str, arguments)]
    command += ["--ros-args", "-r", "__ns:=/player_test"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as p:
        try:
            yield p
        finally:
            p.kill()


def listen(peer, *topics):
    received = {topic: [] for topic in topics}
    for topic, messages in received.items():
        kind = CameraInfo if topic.endswith("info") else Image
        peer.node.create_subscription(kind, topic, messages.append, 50)
    return received


def finished(peer, process):
    peer.until(lambda: process.poll() is not None, "the player to end")
    for _ in range(5):
        peer.executor.spin_once(timeout_sec=0.1)
    return process.stdout.read()


def test_plays_every_image_once_with_stamps_and_infos(peer, recording):
    topics = [f"{name}/{kind}" for name in OFFSETS for kind in ("image", "camera_info")]
    received = listen(peer, *topics)
    with player(recording) as process:
        output = finished(peer, process)
        assert process.returncode == 0, output
    assert "6/6" in output
    counts = {topic: len(messages) for topic, messages in received.items()}
    assert counts == {
        topic: COUNT // 2 if topic.startswith("thermal") else COUNT for topic in topics
    }
    stamps = [stamp_ns(message.header) for message in received["rgb/image"]]
    now = peer.node.get_clock().now().nanoseconds
    assert all(now - 60 * PATIENCE_S * 10**9 < stamp <= now for stamp in stamps)
    # A standstill of the machine may shift a shot, never bring two closer together.
    assert all(gap >= 20 * MS for gap in np.diff(stamps))
    for name, offset in OFFSETS.items():
        encoding = {"rgb": "rgb8", "depth": "16UC1", "thermal": "mono16"}[name]
        for image, info in zip(
            received[f"{name}/image"], received[f"{name}/camera_info"], strict=True
        ):
            index = image.data[0]
            assert set(np.frombuffer(image.data, np.uint8)) <= {index, 0}
            assert stamp_ns(image.header) == stamps[index] + offset
            assert image.encoding == encoding
            assert image.header.frame_id == f"{name}_optical_frame"
            assert info.header == image.header
            assert (info.height, info.width) == (image.height, image.width)
            assert info.k[0] == (0.0 if name == "thermal" else 10.0)


def test_loops_and_resizes_until_interrupted(peer, recording):
    received = listen(peer, "rgb/image", "rgb/camera_info")
    with player(recording, "--loop", "--size", "24x16", "--rate", "100") as process:
        infos = received["rgb/camera_info"]
        peer.until(lambda: len(infos) > 2 * COUNT, "the third round")
        process.send_signal(signal.SIGINT)
        output = finished(peer, process)
        assert process.returncode == 0, output
    image, info = received["rgb/image"][0], infos[0]
    assert (image.height, image.width) == (16, 24)
    # The centre of the picture stays the centre.
    np.testing.assert_allclose(info.k, [20, 0, 11.5, 0, 20, 7.5, 0, 0, 1])
    stamps = [stamp_ns(message.header) for message in received["rgb/image"]]
    assert all(gap > 0 for gap in np.diff(stamps))


def test_best_effort_can_be_offered(peer, recording):
    received = listen(peer, "rgb/image")
    with player(recording, "--reliability", "best_effort", "--wait", "0.5") as process:
        output = finished(peer, process)
    assert not received["rgb/image"]  # this listener insists on reliable
    assert process.returncode == 1
    assert "0 of 1 subscribers to /player_test/rgb/image within 0.5 s" in output


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: folder / "nowhere", "nowhere is no folder"),
        (lambda folder: folder / "rgb", "has no images in rgb, visible, vi"),
    ],
)
def test_a_folder_that_cannot_be_played_is_named(peer, recording, prepare, message):
    with player(prepare(recording)) as process:
        output = finished(peer, process)
    assert process.returncode == 1
    assert message in output
    assert "Traceback" not in output


def test_an_image_that_cannot_be_read_is_named(peer, recording):
    received = listen(peer, "rgb/image")
    (recording / "rgb" / "3.png").write_bytes(b"no picture")
    with player(recording) as process:
        output = finished(peer, process)
    assert process.returncode == 1
    assert "3.png cannot be read as an image" in output
    assert len(received["rgb/image"]) == 3


def test_an_error_of_any_kind_ends_it(peer, recording):
    received = listen(peer, "rgb/image")
    program = (
        "import sys\n"
        "from mmfusion_ros import camera_player\n"
        "from mmfusion_ros.core import playback\n"
        "read = playback.read_shot_image\n"
        "def fail(path, *options):\n"
        "    if path.stem == '2': raise OSError('the disk is gone')\n"
        "    return read(path, *options)\n"
        "playback.read_shot_image = fail\n"
        "sys.exit(camera_player.main(sys.argv[1:]))"
    )
    with player(recording, program=("-c", program)) as process:
        output = finished(peer, process)
    assert process.returncode == 1
    assert "the disk is gone" in output
    assert "Traceback" not in output
    assert len(received["rgb/image"]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_pause_ends_it(peer, recording, number):
    received = listen(peer, "rgb/image")
    with player(recording, "--rate", "0.01") as process:
        peer.until(lambda: received["rgb/image"], "the first picture")
        process.send_signal(number)
        output = finished(peer, process)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert len(received["rgb/image"]) == 1


@pytest.mark.parametrize("heard", [False, True])
def test_a_signal_while_waiting_for_listeners_ends_it(peer, recording, heard):
    if heard:
        listen(peer, "rgb/image")  # and nobody for the others, which are waited for too
    with player(recording, "--wait", "600") as process:
        topic = "/player_test/rgb/image"
        peer.until(lambda: peer.node.count_publishers(topic), "the player")
        process.terminate()
        output = finished(peer, process)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_plays_a_bag(peer, tmp_path):
    bag = write_bag(tmp_path / "bag", cameras(3))
    received = listen(peer, *(f"{name}/image" for name in OFFSETS))
    with player(bag) as process:
        output = finished(peer, process)
    assert process.returncode == 0, output
    start = stamp_ns(received["rgb/image"][0].header)
    for name in OFFSETS:
        late = 3 * MS if name == "thermal" else 0
        messages = received[f"{name}/image"]
        assert len(messages) == 3
        for index, message in enumerate(messages):
            assert stamp_ns(message.header) >= start + index * PERIOD + late
            shown = pictures(index, (48, 64))[name]
            np.testing.assert_array_equal(np.frombuffer(message.data, shown.dtype), shown.ravel())


@pytest.mark.parametrize("arguments", [("--size", "12"), ("--size", "0x4"), ("--rate", "0")])
def test_wrong_arguments_are_refused(recording, arguments):
    with player(recording, *arguments) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert f"argument {arguments[0]}" in output
