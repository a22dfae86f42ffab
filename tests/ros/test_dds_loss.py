"""Camera images cross process borders without loss, and only thanks to the DDS profile.

Inside one process Fast DDS bypasses the transport, so this needs two.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("sensor_msgs.msg", reason="ROS 2 messages are not installed")

SENT = 60

PUBLISHER = """
import sys, time
from mmfusion_ros.dds_profile import apply_dds_profile
if sys.argv[1] == "profile":
    assert apply_dds_profile() is not None
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("camera")
qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "image", qos)
image = Image(height=720, width=1280, encoding="rgb8", step=3840)
image.data.frombytes(bytes(1280 * 720 * 3))
deadline = time.monotonic() + 30
while publisher.get_subscription_count() == 0:
    assert time.monotonic() < deadline, "no subscriber"
    time.sleep(0.02)
time.sleep(0.3)
for number in range(int(sys.argv[2])):
    image.header.stamp.sec = number
    publisher.publish(image)
    time.sleep(1 / 20)
time.sleep(1)
node.destroy_node()
rclpy.shutdown()
"""

# Ends when the publisher leaves.
SUBSCRIBER = """
import time
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("viewer")
seen = set()
qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
node.create_subscription(Image, "image", lambda image: seen.add(image.header.stamp.sec), qos)
deadline = time.monotonic() + 60
met = False
while time.monotonic() < deadline:
    rclpy.spin_once(node, timeout_sec=0.05)
    present = node.count_publishers("image") > 0
    if met and not present:
        break
    met = met or present
print(len(seen))
node.destroy_node()
rclpy.shutdown()
"""


def received(how: str, tmp_path: Path) -> int:
    """Send images from one process to another; return how many arrived."""
    environment = {
        name: value for name, value in os.environ.items() if not name.endswith("_PROFILES_FILE")
    }
    # A profile file in the working folder would be read as well.
    options = {"cwd": tmp_path, "env": environment, "text": True}
    with subprocess.Popen(
        [sys.executable, "-c", SUBSCRIBER], stdout=subprocess.PIPE, **options
    ) as subscriber:
        try:
            subprocess.run(
                [sys.executable, "-c", PUBLISHER, how, str(SENT)], check=True, timeout=90, **options
            )
            output, _ = subscriber.communicate(timeout=90)
        finally:
            subscriber.kill()
    return int(output)


def udp_buffer() -> int:
    try:
        return int(Path("/proc/sys/net/core/rmem_default").read_text())
    except OSError:
        return 0


def test_all_images_arrive_with_the_profile(tmp_path):
    # Best effort promises nothing when the machine is so busy that a process stands still
    # for longer than the segment lasts; a wrong profile loses images every time.
    counts = []
    while SENT not in counts and len(counts) < 3:
        counts.append(received("profile", tmp_path))
    assert SENT in counts, f"received {counts} of {SENT}"


def test_images_get_lost_without_the_profile(tmp_path):
    if udp_buffer() > 1280 * 720 * 3:
        pytest.skip("this machine's UDP buffers hold whole images")
    assert received("defaults", tmp_path) < SENT
