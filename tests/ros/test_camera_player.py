"""The player in a process of its own, heard over real DDS."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")

from bags import PERIOD, START, camera_info, cameras, pictures, write_bag
from nodes import MS, PATIENCE_S, Peer
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mmfusion_ros.messages import stamp_ns
from mmfusion_ros.player_options import player_parser

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
def player(*arguments, program=("-m", "mmfusion_ros.camera_player"), ros_arguments=()):
    command = [sys.executable, *program, *map(str, arguments)]
    command += ["--ros-args", "-r", "__ns:=/player_test", *ros_arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as p:
        try:
            yield p
        finally:
            p.kill()


def listen(peer, *topics):
    received = {topic: [] for topic in topics}
    kinds = {"camera_info": CameraInfo, "image": Image, "clock": Clock}
    for topic, messages in received.items():
        kind = kinds.get(topic.rpartition("/")[2], CompressedImage)
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
    assert "Failed to publish log message" not in output
    assert re.search("sent [01] rgb, ", output)  # the signal may come before it is counted
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


def test_a_bag_plays_with_its_camera_info_at_another_rate(peer, tmp_path):
    infos = [camera_info("/camera/color/camera_info", 50.0)]
    bag = write_bag(tmp_path / "bag", [*infos, *cameras(3)])
    received = listen(peer, "rgb/image", "rgb/camera_info", "depth/camera_info", "thermal/image")
    with player(bag, "--rate", "50", "--size", "128x96") as process:
        output = finished(peer, process)
    assert process.returncode == 0, output
    rgb, thermal = (received[f"{name}/image"] for name in ("rgb", "thermal"))
    for index in range(3):
        offset_ns = stamp_ns(rgb[index].header) - stamp_ns(rgb[0].header)
        assert offset_ns >= index * 20 * MS
        # A fifth of the time, between the cameras too.
        assert stamp_ns(thermal[index].header) >= stamp_ns(rgb[0].header) + index * 20 * MS
    known, unknown = received["rgb/camera_info"][0], received["depth/camera_info"][0]
    np.testing.assert_allclose(known.k, [100, 0, 64.5, 0, 100, 48.5, 0, 0, 1])
    assert (known.width, known.height, known.distortion_model) == (128, 96, "plumb_bob")
    assert (unknown.width, unknown.height, set(unknown.k)) == (128, 96, {0.0})


def test_the_clock_is_the_recordings_and_goes_back_with_the_loop(peer, tmp_path):
    bag = write_bag(tmp_path / "bag", cameras(3))
    received = listen(peer, "rgb/image", "/clock")
    arguments = ("--clock", "200", "--loop", "--rate", "40")
    with player(bag, *arguments) as process:
        peer.until(lambda: len(received["rgb/image"]) >= 9, "three rounds")
        process.terminate()
        output = finished(peer, process)
    assert process.returncode == 0, output
    stamps = [stamp_ns(message.header) for message in received["rgb/image"][:9]]
    assert stamps == [START + index * PERIOD for index in range(3)] * 3
    times = [m.clock.sec * 10**9 + m.clock.nanosec for m in received["/clock"]]
    assert len(times) > len(received["rgb/image"])
    backward = [gap for gap in np.diff(times) if gap < 0]
    assert len(backward) >= 2
    # It goes back by a whole round, never by a little; a picture comes when it is its time.
    assert max(backward) < -PERIOD
    assert all(any(0 <= time - stamp < PERIOD / 2 for time in times) for stamp in stamps)


def test_the_clock_never_goes_back_within_a_round(peer, recording):
    """Though reading is slow, and the pictures that are late go on from where they were."""
    received = listen(peer, "rgb/image", "/clock")
    program = (
        "import sys, time\n"
        "from mmfusion_ros import camera_player\n"
        "images = camera_player._images\n"
        "def slow(*options):\n"
        "    for picture, image in images(*options):\n"
        "        time.sleep(0.2 if picture.modality == 'depth' else 0.0)\n"
        "        yield picture, image\n"
        "camera_player._images = slow\n"
        "sys.exit(camera_player.main(sys.argv[1:]))"
    )
    with player(recording, "--clock", "200", program=("-c", program)) as process:
        output = finished(peer, process)
    assert process.returncode == 0, output
    assert len(received["rgb/image"]) == COUNT
    times = [m.clock.sec * 10**9 + m.clock.nanosec for m in received["/clock"]]
    assert len(times) > COUNT
    assert min(np.diff(times)) >= 0


def test_compressed_images_come_on_the_topics_of_image_transport(peer, recording):
    topics = ("rgb/image/compressed", "depth/image/compressedDepth", "thermal/image/compressed")
    received = listen(peer, *topics, "rgb/camera_info")
    arguments = ["rgb=compressed", "depth=compressedDepth", "thermal=compressed"]
    with player(recording, *(f"--transport={each}" for each in arguments)) as process:
        output = finished(peer, process)
    assert process.returncode == 0, output
    assert [len(received[topic]) for topic in topics] == [COUNT, COUNT, COUNT // 2]
    rgb, depth, thermal = (received[topic][-1] for topic in topics)
    assert rgb.format == "rgb8; jpeg compressed bgr8"
    assert depth.format == "16UC1; compressedDepth png"
    assert thermal.format == "mono16; png compressed "
    info = received["rgb/camera_info"][-1]
    assert (info.height, info.width, info.header) == (8, 12, rgb.header)
    for message, start in ((rgb, 0), (depth, 12), (thermal, 0)):
        data = np.frombuffer(message.data, np.uint8)[start:]
        shown = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        np.testing.assert_allclose(shown, COUNT - 1, atol=1)


def test_encodings_and_row_padding(peer, recording):
    received = listen(peer, "rgb/image", "depth/image", "thermal/image")
    arguments = ["--encoding=rgb=bgra8", "--encoding=depth=32FC1", "--row-padding=4"]
    with player(recording, *arguments) as process:
        output = finished(peer, process)
    assert process.returncode == 0, output
    rgb, depth, thermal = (received[f"{name}/image"][-1] for name in OFFSETS)
    assert (rgb.encoding, depth.encoding, thermal.encoding) == ("bgra8", "32FC1", "mono16")
    assert (rgb.step, depth.step, thermal.step) == (12 * 4 + 4, 12 * 4 + 4, 6 * 2 + 4)
    assert len(depth.data) == 8 * depth.step
    metres = np.frombuffer(depth.data, np.float32).reshape(8, -1)[:, :12]
    np.testing.assert_allclose(metres, 0.005)


def test_faults_of_all_sorts(peer, recording):
    received = listen(peer, "rgb/image", "depth/image", "thermal/image")
    faults = ["depth:stall=100", "thermal:truncate=0.5", "rgb:jump_s=-3@0.06"]
    with player(recording, *(f"--fault={fault}" for fault in faults)) as process:
        output = finished(peer, process)
    assert process.returncode == 0, output
    assert f"sent {COUNT} rgb, 0 depth, {COUNT // 2} thermal" in output
    assert not received["depth/image"]
    assert {len(message.data) for message in received["thermal/image"]} == {4 * 6}
    stamps = [stamp_ns(message.header) for message in received["rgb/image"]]
    assert len(stamps) == COUNT
    assert stamps[3] < stamps[2] - 2 * 10**9
    assert stamps[2] > stamps[0]
    assert stamps[5] > stamps[3]


def test_faults_of_a_camera_that_is_not_there_are_refused(recording):
    with player(recording, "--without=depth", "--fault=depth:drop=1") as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "--fault depth:drop=1: there is no such camera to play" in output
    assert "rgb, thermal" in output


def test_quality_of_service_is_overridden_by_parameters(peer, recording):
    received = listen(peer, "depth/image")
    best_effort = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
    heard = []
    peer.node.create_subscription(Image, "rgb/image", heard.append, best_effort)
    name = "qos_overrides./player_test/rgb/image.publisher"
    values = ["-p", f"{name}.reliability:=best_effort", "-p", f"{name}.depth:=2"]
    values += ["-p", "qos_overrides./rgb/image.publisher.depth:=9"]  # not in this namespace
    with player(recording, "--rate=5", ros_arguments=values) as process:
        infos = peer.until(
            lambda: peer.node.get_publishers_info_by_topic("rgb/image"), "the player"
        )
        output = finished(peer, process)
    assert process.returncode == 0, output
    assert infos[0].qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT
    assert heard
    assert "parameter qos_overrides./rgb/image.publisher.depth has no effect" in output
    assert output.count("has no effect") == 1
    assert len(received["depth/image"]) == COUNT  # whose publisher stays reliable


@pytest.mark.parametrize(
    ("program", "wrong"),
    [
        ("fusion_node", ("-p", "depth")),
        ("camera_player", ("--params-file", "/nowhere.yaml")),
        ("camera_player", ("--loud",)),
    ],
)
def test_wrong_ros_arguments_are_named(recording, program, wrong):
    with player(
        recording, program=("-m", f"mmfusion_ros.{program}"), ros_arguments=wrong
    ) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, output
    assert "ROS does not start: " in output
    assert wrong[-1] in output
    assert "Traceback" not in output


@pytest.mark.parametrize("value", ["reliability:=perhaps", "depth:=many", "depth:=-3"])
def test_a_wrong_quality_of_service_is_named(recording, value):
    name = f"qos_overrides./player_test/rgb/image.publisher.{value}"
    with player(recording, ros_arguments=["-p", name]) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, output
    assert "qos_overrides./player_test/rgb/image.publisher" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--size", "12"),
        ("--size", "0x4"),
        ("--rate", "0"),
        ("--rate", "inf"),
        ("--frames", "0"),
        ("--clock", "-1"),
        ("--seed", "-1"),
        ("--transport", "rgb=compressedDepth"),
        ("--encoding", "lidar=mono8"),
        ("--fault", "depth:melt=1"),
    ],
)
def test_wrong_arguments_are_refused(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        player_parser().parse_args(["folder", *arguments])
    assert ended.value.code == 2
    assert f"argument {arguments[0]}" in capsys.readouterr().err
