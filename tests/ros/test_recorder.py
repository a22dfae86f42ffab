"""Topics recorded over real DDS are in the bag as they were published."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.ros

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="messages are not built")

from mmfusion_msgs.msg import FrameStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Writer
from sensor_msgs.msg import Image

from mmfusion_ros import recorder
from mmfusion_ros.core.bag_reader import open_bag, read_bag
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.message_definitions import typestore_for
from mmfusion_ros.recorder import _message_class, _over

TIMEOUT = 60


@pytest.fixture
def node() -> Iterator[rclpy.node.Node]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("camera", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@contextmanager
def recording(out: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "mmfusion_ros.recorder", "--out", str(out), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def picture(number: int) -> Image:
    message = Image(height=4, width=6, encoding="mono8", step=6)
    message.header.stamp.sec = number
    message.data.frombytes(bytes([number]) * 24)
    return message


def read(bag: Path, topic: str) -> list:
    with AnyReader([bag]) as reader:
        return [
            reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages(reader.topics[topic].connections)
        ]


def test_messages_of_two_topics_and_two_reliabilities(node, tmp_path):
    best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    images = node.create_publisher(Image, "camera/image", best_effort)
    statuses = node.create_publisher(FrameStatus, "status", 10)
    out = tmp_path / "bag"
    # It ends by itself once nothing more comes, so whatever is under way is waited for.
    with recording(out, "camera/image", "/status", "--idle-timeout", "5") as process:
        wait_for(images.get_subscription_count, "no subscription to images")
        wait_for(statuses.get_subscription_count, "no subscription to statuses")
        for number in range(1, 11):
            images.publish(picture(number))
            statuses.publish(FrameStatus(artifact=f"a{number}", stage_durations=[0.5]))
            time.sleep(0.03)  # best effort: a burst might be more than the socket holds
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    assert "10 messages of /camera/image" in output
    assert "10 messages of /status" in output
    frames = read(out, "/camera/image")
    assert [frame.header.stamp.sec for frame in frames] == list(range(1, 11))
    np.testing.assert_array_equal(frames[4].data, np.full(24, 5))
    assert [status.artifact for status in read(out, "/status")] == [f"a{n}" for n in range(1, 11)]
    with AnyReader([out]) as reader:
        offered = {
            topic: info.connections[0].ext.offered_qos_profiles[0].reliability.name
            for topic, info in reader.topics.items()
        }
    assert offered == {"/camera/image": "BEST_EFFORT", "/status": "RELIABLE"}


def test_it_waits_for_a_topic_and_ends_when_idle(node, tmp_path):
    out = tmp_path / "bag"
    with recording(out, "late/image", "--idle-timeout", "0.5", "--wait", "60") as process:
        assert "waiting for /late/image" in process.stdout.readline()
        time.sleep(2)
        assert process.poll() is None  # nothing to be idle after
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publisher = node.create_publisher(Image, "late/image", latched)
        publisher.publish(picture(7))  # before anybody listens
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    assert "recording /late/image" in output
    assert [frame.header.stamp.sec for frame in read(out, "/late/image")] == [7]


def test_a_topic_may_appear_while_another_is_written(node, tmp_path, monkeypatch):
    clashes = []

    class Watchful(Writer):
        """Notes whoever changes the bag while a message is being written."""

        busy = False

        def write(self, *arguments):
            self.busy = True
            time.sleep(0.02)
            super().write(*arguments)
            self.busy = False

        def add_connection(self, *arguments, **options):
            if self.busy:
                clashes.append(arguments)
            return super().add_connection(*arguments, **options)

    monkeypatch.setattr(recorder, "Writer", Watchful)
    executor = rclpy.executors.SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    names = [f"topic_{index}" for index in range(6)]
    with recorder.Recorder(node, tmp_path / "bag", names) as recording:
        publishers = []
        for name in names:
            publishers.append(node.create_publisher(Image, name, 10))
            deadline = time.monotonic() + TIMEOUT
            while f"/{name}" in recording.missing and time.monotonic() < deadline:
                for publisher in publishers:
                    publisher.publish(picture(1))
                executor.spin_once(timeout_sec=0.01)
                recording.look()
        assert not recording.missing
    assert not clashes
    assert sum(1 for _ in read(tmp_path / "bag", f"/{names[0]}")) == recording.counts["/topic_0"]


def test_it_ends_by_sigterm_with_a_complete_bag(node, tmp_path):
    out = tmp_path / "bag"
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = node.create_publisher(Image, "once/image", latched)
    publisher.publish(picture(1))
    with recording(out, "/once/image", "/never") as process:
        assert any("waiting for " in line for line in process.stdout)  # it may know the other
        wait_for(publisher.get_subscription_count, "no subscription")
        assert publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=TIMEOUT))
        process.terminate()
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    assert "1 messages of /once/image" in output
    assert "0 messages of /never" in output
    assert (out / "metadata.yaml").is_file()


@pytest.mark.parametrize(
    ("last_message", "options", "over_after"),
    [
        (None, {}, None),
        (None, {"idle_timeout": 2.0}, None),
        (None, {"idle_timeout": 2.0, "wait": 30.0}, 30.0),
        (None, {"duration": 5.0}, 5.0),
        (7.0, {}, None),
        (7.0, {"wait": 8.0}, None),
        (7.0, {"wait": 1.0, "idle_timeout": 2.0}, 9.0),
        (7.0, {"idle_timeout": 60.0, "duration": 20.0}, 20.0),
    ],
)
def test_what_each_option_counts_from(monkeypatch, last_message, options, over_after):
    """Seconds since the start; the newest message came at the seventh, or none has come."""
    asked = SimpleNamespace(**{"duration": None, "wait": None, "idle_timeout": None, **options})
    begun = SimpleNamespace(failure=None, last_message=last_message)
    ends = []
    for now in np.arange(last_message or 0.0, 100.0, 0.5):
        monkeypatch.setattr(recorder.time, "monotonic", lambda now=now: now)
        if _over(begun, asked, started=0.0):
            ends.append(float(now))
    assert (ends[0] if ends else None) == over_after


@pytest.mark.parametrize("by", ["duration", "wait", "sigterm"])
def test_that_nothing_was_recorded_is_said(tmp_path, by):
    out = tmp_path / "bag"
    options = [] if by == "sigterm" else [f"--{by}", "0.5"]
    with recording(out, "/never", *options) as process:
        assert "waiting for /never" in process.stdout.readline()
        if by == "sigterm":
            process.terminate()
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1, output
    assert "0 messages of /never" in output
    assert f"nothing was recorded, so there is no bag at {out}" in output
    assert not out.exists()


def test_an_existing_bag_is_kept(tmp_path):
    with recording(tmp_path, "/never") as process:
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert output.startswith("recorder: ")
    assert "exists already" in output


def test_a_place_where_no_bag_can_be(tmp_path):
    (tmp_path / "file").touch()
    with recording(tmp_path / "file" / "bag", "/never") as process:
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert output.startswith("recorder: no bag can be made at ")
    assert len(output.strip().splitlines()) == 1


def test_a_full_disk_ends_the_recording_with_what_there_is(node, tmp_path, monkeypatch, capsys):
    publisher = node.create_publisher(Image, "full/image", 10)
    done = threading.Event()
    write, written = Writer.write, []

    def publish() -> None:
        while not done.wait(0.05):
            publisher.publish(picture(1))

    def fill_disk(self, *arguments) -> None:
        if len(written) == 3:
            self.storage.close_chunk()
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(write(self, *arguments))

    monkeypatch.setattr(Writer, "write", fill_disk)
    # Those of the process would otherwise stay the recorder's.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        status = recorder.main(["--out", str(tmp_path / "bag"), "full/image", "--duration", "60"])
    finally:
        done.set()
        publishing.join()
    assert status == 1
    message = capsys.readouterr().err
    assert "ends early: [Errno 28] No space left on device" in message
    assert len(message.strip().splitlines()) == 1
    bag = open_bag(
        tmp_path / "bag",
        {Modality.RGB: "/full/image"},
        without=frozenset({Modality.DEPTH, Modality.THERMAL}),
    )
    assert len(list(read_bag(bag))) == 1 + 3  # the first entry says that the bag ends early


def test_a_type_that_is_not_installed_is_said():
    with pytest.raises(MmfusionError, match=r"/x has type lost_msgs/msg/Thing.*not installed here"):
        _message_class("/x", "lost_msgs/msg/Thing")


def test_a_definition_that_is_not_installed_is_said():
    with pytest.raises(MmfusionError, match=r"msg/Thing\.msg of lost_msgs"):
        typestore_for("lost_msgs/msg/Thing")


def test_definitions_outside_the_library_come_from_the_packages():
    pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not built")
    name = "vision_msgs/msg/Detection3DArray"
    assert name in typestore_for(name).fielddefs
