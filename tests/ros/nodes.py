"""What tests need to run a fusion node and to talk to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from mmfusion_msgs.msg import FrameStatus
from rcl_interfaces.msg import Parameter
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, Detection3DArray
from visualization_msgs.msg import MarkerArray

from mmfusion_ros.messages import image_message, set_stamp, stamp_ns

PATIENCE_S = 60.0  # busy machines; reached only when something is broken
ENCODINGS = {"rgb": "rgb8", "depth": "16UC1", "thermal": "mono16"}
MS = 1_000_000
SECOND = 1000 * MS
SIZE = (48, 64)
# Sets wait this long for their last message, so that a slow machine changes nothing.
PATIENT = {"max_wait_ms": 1000.0, "threads": 1}


def pictures(seed: int) -> dict[str, np.ndarray]:
    """One picture of each camera, full of noise."""
    rng = np.random.default_rng(seed)
    return {
        "rgb": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "depth": rng.integers(500, 5000, SIZE, dtype=np.uint16),
        "thermal": rng.integers(0, 2**16, SIZE, dtype=np.uint16),
    }


def pixels(message: Image) -> np.ndarray:
    """An 8-bit image as (H, W, C)."""
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)


class Peer:
    """A node of the test's own process: cameras on one side, listener on the other.

    It sees the fusion node of its own namespace only.
    """

    def __init__(self, namespace: str = "") -> None:
        self._prefix = f"{namespace}/fusion_node".lstrip("/")
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("peer", namespace=namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.received: dict[str, dict[int, Any]] = {}
        self.diagnostics: dict[str, Any] = {}
        self._services: dict[str, Any] = {}
        self._cameras: dict[str, Any] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 5)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Spin until the condition holds; return what it gives."""
        deadline = time.monotonic() + PATIENCE_S
        while not (result := condition()):
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            self.executor.spin_once(timeout_sec=0.02)
        return result

    def listen(self, *names: str) -> None:
        """Subscribe to topics of the fusion node; messages are kept by stamp."""
        kinds = {
            "status": FrameStatus,
            "fused/camera_info": CameraInfo,
            "detections": Detection2DArray,
            "detections_3d": Detection3DArray,
            "markers": MarkerArray,
        }
        for name in names:
            kept = self.received.setdefault(name, {})

            def keep(message: Any, kept: dict[int, Any] = kept) -> None:
                first = message.markers[0] if isinstance(message, MarkerArray) else message
                kept[stamp_ns(first.header)] = message

            topic = f"fusion_node/{name}"
            self.node.create_subscription(kinds.get(name, Image), topic, keep, 50)

    def advertise(
        self, *, reliable: bool = True, names: tuple[str, ...] = tuple(ENCODINGS)
    ) -> None:
        """Create the cameras' publishers."""
        kind = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=5, reliability=kind)
        for name in names:
            self._cameras[name] = self.node.create_publisher(Image, f"{name}/image", qos)

    def withdraw(self) -> None:
        """Destroy the cameras' publishers."""
        for publisher in self._cameras.values():
            self.node.destroy_publisher(publisher)
        self._cameras.clear()

    def send(self, stamp: int, **pictures: np.ndarray | Image) -> None:
        """Publish pictures of one instant, RGB last."""
        for name in sorted(pictures, key=lambda name: name == "rgb"):
            picture = pictures[name]
            if not isinstance(picture, Image):
                picture = image_message(picture, ENCODINGS[name], Header())
            picture.header.frame_id = f"{name}_frame"
            set_stamp(picture.header, stamp)
            self._cameras[name].publish(picture)

    def matched(self) -> None:
        """Wait until the node subscribes to all cameras."""
        self.until(
            lambda: all(camera.get_subscription_count() for camera in self._cameras.values()),
            "the node to subscribe",
        )

    def got(self, name: str, stamp: int) -> Any:
        """Wait for the message of a topic with this stamp."""
        return self.until(lambda: self.received[name].get(stamp), f"{name} of {stamp}")

    def warm_up(self, start: int, **pictures: np.ndarray) -> int:
        """Send sets until a status and a picture come back; return the next free stamp."""
        self.matched()
        stamp = start
        deadline = time.monotonic() + PATIENCE_S
        topics = list(self.received)
        while not all(self.received[topic] for topic in topics):
            assert time.monotonic() < deadline, f"nothing on {topics}"
            self.send(stamp, **pictures)
            stamp += 100 * MS
            for _ in range(5):
                self.executor.spin_once(timeout_sec=0.02)
        return stamp

    def diagnosed(self, name: str, level: bytes, text: str = "") -> Any:
        """Wait until a diagnostic has this level and contains the text."""

        def found() -> Any:
            status = self.diagnostics.get(name)
            return status if status and status.level == level and text in status.message else None

        try:
            return self.until(found, f"{name} at level {level!r} with {text!r}")
        except AssertionError:
            raise AssertionError(f"{name} is {self.diagnostics.get(name)}") from None

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return bool(self._call("change_state", request).success)

    def state(self) -> str:
        return str(self._call("get_state", GetState.Request()).current_state.label)

    def set_parameter(self, message: Parameter) -> Any:
        request = SetParameters.Request(parameters=[message])
        return self._call("set_parameters", request).results[0]

    def _call(self, name: str, request: Any) -> Any:
        if not self._services:
            self._get_acquainted()
        future = self._services[name].call_async(request)
        self.until(future.done, f"an answer of {name}")
        return future.result()

    def _get_acquainted(self) -> None:
        """Make sure that answers will arrive.

        A client knows that the service is there, but not whether the service has found the
        client, and an answer to an unknown client is lost. Endpoints are announced in order:
        once the last service answers, all do.
        """
        kinds = {
            "change_state": ChangeState,
            "set_parameters": SetParameters,
            "get_state": GetState,
        }
        for name, kind in kinds.items():
            self._services[name] = self.node.create_client(kind, f"fusion_node/{name}")
        last = self._services["get_state"]
        self.until(last.service_is_ready, "the services")
        futures: dict[int, Any] = {}  # by the second they were sent in

        def answered() -> bool:
            second = int(time.monotonic())
            if second not in futures:
                futures[second] = last.call_async(GetState.Request())
            return any(future.done() for future in futures.values())

        self.until(answered, "a first answer")

    def _diagnose(self, message: DiagnosticArray) -> None:
        for status in message.status:
            node, _, name = status.name.partition(": ")
            if node == self._prefix:
                self.diagnostics[name] = status


@contextlib.contextmanager
def node_process(
    artifact: Path,
    rig: Path,
    log: Path,
    namespace: str = "",
    remap: Mapping[str, str] | None = None,
    **parameters: Any,
) -> Iterator[Any]:
    """Run the fusion node in a process of its own, configured and active."""
    values = {"artifact": artifact, "rig": rig, "autostart": "true", "backend": "onnxruntime"}
    values |= parameters
    arguments = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
    command = [sys.executable, "-m", "mmfusion_ros.fusion_node", "--ros-args", *arguments]
    for old, new in {**({"__ns": namespace} if namespace else {}), **(remap or {})}.items():
        command += ["-r", f"{old}:={new}"]
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ}
        ) as process,
    ):
        try:
            yield process
            assert process.poll() is None, f"the node died:\n{log.read_text()}"
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()


@contextlib.contextmanager
def spinning(node: Any, executor: SingleThreadedExecutor | None = None) -> Iterator[None]:
    """Spin a node of another context on a thread."""
    executor = executor or SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        executor.shutdown()
