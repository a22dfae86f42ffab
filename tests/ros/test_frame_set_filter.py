"""Our synchroniser as a message filter, behind and before filters of the stock interface."""

from __future__ import annotations

import itertools
import os
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.ros

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import message_filters_double as message_filters
from nodes import ENCODINGS, MS, SECOND, SIZE, Peer, pictures
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Header

from mmfusion_ros.core.synchronizer import SynchronizerConfig
from mmfusion_ros.frame_set_filter import FrameSetFilter
from mmfusion_ros.messages import image_message, set_stamp


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("filters", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def image(name: str, stamp: int):
    header = Header()
    set_stamp(header, stamp)
    shape = (*SIZE, 3) if name == "rgb" else SIZE
    kind = np.uint8 if name == "rgb" else np.uint16
    return image_message(np.full(shape, stamp % 251, kind), ENCODINGS[name], header)


def test_it_chains_with_filters_of_the_stock_interface(node):
    sources = {name: message_filters.SimpleFilter() for name in ENCODINGS}
    ours = FrameSetFilter(list(sources.values()), node)
    # Behind it: anything that registers with it, such as this one.
    after = message_filters.SimpleFilter()
    ours.registerCallback(after.signalMessage)
    sets = []
    after.registerCallback(lambda *messages: sets.append(messages), "extra")
    sent = []
    for number in range(1, 6):
        parts = {name: image(name, number * 33 * MS) for name in ("thermal", "depth", "rgb")}
        for name, message in parts.items():
            sources[name].signalMessage(message)
        sent.append((parts["rgb"], parts["depth"], parts["thermal"], "extra"))
    # The very messages, in order; the last may still wait.
    assert sets[:4] == sent[:4]


def test_an_image_that_does_not_come_is_none_after_the_wait(node):
    sources = [message_filters.SimpleFilter() for _ in ENCODINGS]
    ours = FrameSetFilter(sources, node, SynchronizerConfig(max_wait_ns=20 * MS))
    sets = []
    ours.registerCallback(lambda *messages: sets.append(messages))
    rgb = image("rgb", 33 * MS)
    sources[0].signalMessage(rgb)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    for _ in range(1000):
        executor.spin_once(timeout_sec=0.1)
        if sets:
            break
    assert sets == [(rgb, None, None)]


def test_three_inputs_are_needed(node):
    before = list(node.timers)
    with pytest.raises(ValueError, match="2 filters; expected those of rgb, depth and thermal"):
        FrameSetFilter([message_filters.SimpleFilter()] * 2, node)
    assert list(node.timers) == before


def test_nothing_is_handed_out_after_the_end(node):
    sources = [message_filters.SimpleFilter() for _ in ENCODINGS]
    before = len(list(node.timers))
    ours = FrameSetFilter(sources, node)
    sets = []
    ours.registerCallback(lambda *messages: sets.append(messages))
    sources[0].signalMessage(image("rgb", 33 * MS))
    ours.close()
    ours.close()
    assert len(list(node.timers)) == before
    for number in range(2, 6):
        for source, name in zip(sources, ENCODINGS, strict=True):
            source.signalMessage(image(name, number * 33 * MS))
    assert sets == []


def test_the_example_of_the_documentation_runs(repo_root):
    page = (repo_root / "docs" / "ros2-install.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (example,) = (example for example in examples if "FrameSetFilter" in example)
    program = (
        "import sys, message_filters_double\n"
        "sys.modules['message_filters'] = message_filters_double.module()\n"
        f"{example}"
    )
    peer = Peer()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            peer.advertise()
            peer.matched()
            lines = queue.SimpleQueue()
            threading.Thread(target=lambda: lines.put(process.stdout.readline())).start()
            stamps = itertools.count(SECOND, 100 * MS)

            def told() -> bool:
                peer.send(next(stamps), **pictures(1))
                for _ in range(5):
                    peer.executor.spin_once(timeout_sec=0.02)
                return not lines.empty()

            peer.until(told, "a line")
            assert "Time(sec=" in lines.get()
        finally:
            process.kill()
            peer.close()
