"""The running node and cameras, if there are any."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.live_topic import TopicWatch, judge_topic
from mmfusion_ros.checks.ros import NO_ROS, ros_here
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.core.frames import Modality

_NODE_NAME = "fusion_node"
# Fast DDS announces a participant every 3 s; mostly a tenth of this is enough.
_DISCOVERY_S = 3.5
_NAMED_DISCOVERY_S = 8.0
_ANSWER_S = 2.0
_DIAGNOSTICS_S = 2.2  # they come once a second
_PARAMETERS = (
    *(f"{modality.value}_{what}" for modality in Modality for what in ("topic", "transport")),
    "use_sim_time",
    "artifact",
)
# Of diagnostic_msgs/DiagnosticStatus.
_LEVELS = {0: Level.OK, 1: Level.WARNING, 2: Level.ERROR, 3: Level.WARNING}


@dataclass
class FusionNodeState:
    """What a running fusion node says of itself.

    Attributes:
        name: full name.
        lifecycle: label of its state; empty if it gave no answer.
        parameters: values by name; empty if it gave no answer.
    """

    name: str
    lifecycle: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    def resolved(self, topic: str) -> str:
        """A topic as this node's namespace makes it, without remapping: only it knows of that."""
        namespace = self.name.rpartition("/")[0]
        return topic if topic.startswith("/") else f"{namespace}/{topic}"


class Observer:
    """A node of the doctor's own, in a context of its own."""

    def __init__(self) -> None:
        import rclpy  # noqa: PLC0415
        from rclpy.executors import SingleThreadedExecutor  # noqa: PLC0415

        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node(
            f"mmfusion_doctor_{os.getpid()}",
            context=self._context,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def spin(self, seconds: float, until: Callable[[], Any] = lambda: False) -> Any:
        """Spin for a while, or until something holds; return what it gives at the end."""
        deadline = time.monotonic() + seconds
        while not (result := until()) and time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.02)
        return result

    def call(self, service: str, kind: Any, request: Any) -> Any:
        """The answer of a service; None if none comes in time."""
        client: Any = self.node.create_client(kind, service)
        try:
            if not self.spin(_ANSWER_S, client.service_is_ready):
                return None
            # A first answer can be lost while the service has not found this client yet.
            futures: dict[int, Any] = {}

            def answered() -> Any:
                turn = int(time.monotonic() / 0.5)
                if turn not in futures:
                    futures[turn] = client.call_async(request)
                return next((future for future in futures.values() if future.done()), None)

            future = self.spin(_ANSWER_S, answered)
            return None if future is None else future.result()
        finally:
            self.node.destroy_client(client)


@contextlib.contextmanager
def _observing() -> Iterator[Observer]:
    observer = Observer()
    try:
        yield observer
    finally:
        observer.close()


def check_graph(setup: Setup) -> Iterator[Finding]:
    """Node, input topics and diagnostics of a live graph."""
    if setup.quick and not setup.node:
        yield skipped("graph.node", "left out by --quick; with --node its diagnostics are read")
        return
    if not ros_here(setup).rmw:
        yield skipped("graph.node", NO_ROS)
        return
    with _observing() as observer:
        name = _find_node(observer, setup.node)
        if name is None and setup.node:
            yield _no_such_node(observer, setup.node)
            return
        if setup.quick:
            yield _judge_diagnostics(str(name), _diagnostics(observer, str(name)))
            return
        yield from _whole_graph(observer, setup, name)


def _whole_graph(observer: Observer, setup: Setup, name: str | None) -> Iterator[Finding]:
    state = None if name is None else _ask(observer, name)
    told = {} if name is None else _diagnostics(observer, name)
    topics = _topics(setup, state, _heard(told))
    watches = {
        modality: TopicWatch(observer.node, topic, setup) for modality, topic in topics.items()
    }
    observer.spin(_DISCOVERY_S, lambda: all(watch.publishers for watch in watches.values()))
    if name is None and not any(watch.publishers for watch in watches.values()):
        nobody = f"nobody publishes {', '.join(topics.values())}"
        yield skipped("graph.node", f"no fusion node runs here and {nobody}")
        return
    if state is None:
        yield skipped("graph.node", "no fusion node runs here; looking at the cameras alone")
    else:
        yield _state(observer, state)
    others = [] if setup.node else [other for other in _fusion_nodes(observer) if other != name]
    if others:
        yield _not_looked_at(str(name), others)
    for watch in watches.values():
        watch.begin()
    observer.spin(setup.seconds)
    simulated = bool(state and state.parameters.get("use_sim_time"))
    for modality, watch in watches.items():
        yield judge_topic(f"graph.{modality}", watch, setup, modality, simulated=simulated)
        watch.end()
    if name is not None:
        yield _judge_diagnostics(name, told)


def _find_node(observer: Observer, wanted: str) -> str | None:
    """Full name of the node asked for, or of any fusion node; None if it is not there."""

    def found() -> str | None:
        if wanted:
            full = f"/{wanted.lstrip('/')}"
            return full if full in _nodes(observer) else None
        return next(iter(_fusion_nodes(observer)), None)

    name: str | None = observer.spin(_NAMED_DISCOVERY_S if wanted else _DISCOVERY_S, found)
    return name


def _nodes(observer: Observer) -> list[str]:
    """Full names of all nodes but the doctor's own."""
    return [
        f"{namespace.rstrip('/')}/{name}"
        for name, namespace in observer.node.get_node_names_and_namespaces()
        if not name.startswith("mmfusion_doctor_")
    ]


def _fusion_nodes(observer: Observer) -> list[str]:
    names = {name for name in _nodes(observer) if name.rpartition("/")[2] == _NODE_NAME}
    return sorted(names)


def _not_looked_at(name: str, others: list[str]) -> Finding:
    return Finding(
        "graph.others",
        Level.NOTE,
        f"{', '.join(others)} not looked at, as {name} was found first",
        "one fusion node, or the one that is meant",
        f"name it: --node {others[0]}",
    )


def _no_such_node(observer: Observer, wanted: str) -> Finding:
    names = _nodes(observer)
    seen = f"running are {', '.join(sorted(names))}" if names else "no node at all was found"
    return Finding(
        "graph.node",
        Level.ERROR,
        f"{wanted} does not run here: {seen}",
        f"a node {wanted} in this domain",
        "start it, or set the ROS_DOMAIN_ID and discovery range it was started with",
    )


def _ask(observer: Observer, name: str) -> FusionNodeState:
    from lifecycle_msgs.srv import GetState  # noqa: PLC0415
    from rcl_interfaces.srv import GetParameters  # noqa: PLC0415
    from rclpy.parameter import parameter_value_to_python  # noqa: PLC0415

    state = FusionNodeState(name)
    answer = observer.call(f"{name}/get_state", GetState, GetState.Request())
    if answer is None:
        return state
    state.lifecycle = answer.current_state.label
    request = GetParameters.Request(names=list(_PARAMETERS))
    values = observer.call(f"{name}/get_parameters", GetParameters, request)
    if values is not None:
        state.parameters = dict(
            zip(_PARAMETERS, map(parameter_value_to_python, values.values), strict=True)
        )
    return state


def _heard(told: Mapping[str, Any]) -> dict[Modality, str]:
    """Which topic each camera's images are expected on, as the node's diagnostics have it.

    They know of remapping. A node that is not active tells nothing of its inputs.
    """
    cameras = [modality for modality in Modality if f"{modality} camera" in told]
    inputs = [pair.key for pair in told["inputs"].values] if "inputs" in told else []
    # Of each camera, the images and then its camera_info.
    return dict(zip(cameras, inputs[::2], strict=True)) if len(inputs) == 2 * len(cameras) else {}


def _topics(
    setup: Setup, state: FusionNodeState | None, heard: Mapping[Modality, str]
) -> dict[Modality, str]:
    from mmfusion_ros.core.transports import RAW  # noqa: PLC0415
    from mmfusion_ros.parameters import Settings  # noqa: PLC0415

    parameters = {} if state is None else state.parameters
    defaults = Settings()
    topics = {}
    for camera in setup.cameras:
        modality = camera.modality
        topic = setup.topics.get(modality) or heard.get(modality, "")
        if not topic:
            topic = parameters.get(f"{modality}_topic") or defaults.topic(modality)
            transport = parameters.get(f"{modality}_transport") or RAW
            topic = topic if transport == RAW else f"{topic}/{transport}"
        topics[modality] = f"/{topic.lstrip('/')}" if state is None else state.resolved(topic)
    return topics


def _state(observer: Observer, state: FusionNodeState) -> Finding:
    if not state.lifecycle:
        return Finding(
            "graph.node",
            Level.ERROR,
            f"{state.name} is there but gives no answer",
            f"an answer within {_ANSWER_S:g} s",
            "it hangs or the machine is overloaded: look at its log and at machine.cpu",
        )
    values = {"name": state.name, "lifecycle": state.lifecycle, **state.parameters}
    clocks = observer.node.count_publishers("/clock")
    simulated = bool(state.parameters.get("use_sim_time"))
    if state.lifecycle != "active":
        return Finding(
            "graph.node",
            Level.WARNING,
            f"{state.name} is {state.lifecycle}",
            "active",
            f"ros2 lifecycle set {state.name} configure, then activate; or start it with "
            "-p autostart:=true; if that fails, graph.diagnostics and its log say why",
            values,
        )
    if simulated and not clocks:
        return Finding(
            "graph.node",
            Level.WARNING,
            f"{state.name} is active with use_sim_time, and nobody publishes /clock",
            "a simulator or 'ros2 bag play --clock', or use_sim_time false",
            "its clock stands still: latencies and arrival stamps are wrong",
            values,
        )
    if clocks and not simulated:
        return Finding(
            "graph.node",
            Level.NOTE,
            f"{state.name} is active; /clock is published, but its use_sim_time is false",
            "use_sim_time true where stamps are simulated",
            "results are the same; only latencies in status mean nothing",
            values,
        )
    return ok("graph.node", f"{state.name} is active", **values)


def _diagnostics(observer: Observer, name: str) -> dict[str, Any]:
    """A node's newest diagnostics by name; empty if none came."""
    from diagnostic_msgs.msg import DiagnosticArray  # noqa: PLC0415

    prefix = f"{name.lstrip('/')}: "
    received: dict[str, Any] = {}

    def keep(message: Any) -> None:
        for status in message.status:
            if status.name.startswith(prefix):
                received[status.name.removeprefix(prefix)] = status

    subscription = observer.node.create_subscription(DiagnosticArray, "/diagnostics", keep, 5)
    observer.spin(_DIAGNOSTICS_S, lambda: received)
    observer.node.destroy_subscription(subscription)
    return received


def _judge_diagnostics(name: str, received: Mapping[str, Any]) -> Finding:
    """The worst of a node's diagnostics is this finding's level."""
    if not received:
        return Finding(
            "graph.diagnostics",
            Level.ERROR,
            f"{name} says nothing on /diagnostics",
            "a message every second",
            "it hangs or has ended: look at its log",
        )
    levels = {
        part: _LEVELS.get(int.from_bytes(status.level, "little"), Level.ERROR)
        for part, status in received.items()
    }
    bad = {part: level for part, level in levels.items() if level is not Level.OK}
    values = {
        part: {"level": str(levels[part]), "message": status.message}
        for part, status in received.items()
    }
    if not bad:
        return ok("graph.diagnostics", f"all well: {', '.join(received)}", **values)
    worst = max(bad.values(), key=lambda level: level.severity)
    return Finding(
        "graph.diagnostics",
        worst,
        "; ".join(f"{part}: {received[part].message}" for part in bad),
        "all well",
        "docs/troubleshooting.md goes through these by symptom",
        values,
    )
