"""Subscriptions that are as reliable as the cameras allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

_DEPTH = 5


@dataclass(frozen=True)
class InputStatus:
    """What is known about the publishers of an input.

    Attributes:
        topic: full name.
        publishers: how many there are.
        reliability: what is asked of them; empty while there is no subscription.
        incompatible: names of the nodes that do not offer it.
        optional: whether the node does as well without it.
    """

    topic: str
    publishers: int
    reliability: str
    incompatible: tuple[str, ...]
    optional: bool = False


class Input:
    """One subscription, made anew when its publishers change what they offer.

    Large images get lost on best-effort connections, so a reliable one is asked for where all
    publishers offer it. That is known only once they are there: before, with
    ``reliable_if_offered``, there is no subscription.
    """

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        reliability: str,
        callback: Callable[[Any], None],
        *,
        optional: bool = False,
    ) -> None:
        """Subscribe as far as possible now; `poll` does the rest.

        Args:
            node: that subscribes.
            message_type: of the topic.
            topic: name, may be relative and remapped.
            reliability: reliable_if_offered, best_effort or reliable.
            callback: for each message.
            optional: whether the node does as well without it.
        """
        self._node = node
        self._type = message_type
        self._topic = topic
        self._wanted = reliability
        self._callback = callback
        self._subscription: Subscription[Any] | None = None
        self._asked: ReliabilityPolicy | None = None
        self.status = InputStatus(node.resolve_topic_name(topic), 0, "", (), optional)
        self.poll()

    def poll(self) -> None:
        """Look at the publishers and subscribe accordingly; call it now and then."""
        # A list: one node may have several publishers that offer different things.
        offered = [
            (f"{info.node_namespace.rstrip('/')}/{info.node_name}", info.qos_profile.reliability)
            for info in self._node.get_publishers_info_by_topic(self._topic)
        ]
        asked = self._choose({kind for _, kind in offered})
        if asked is not self._asked:
            self._subscribe(asked)
        incompatible: tuple[str, ...] = ()
        if asked is ReliabilityPolicy.RELIABLE:
            incompatible = tuple(sorted({name for name, kind in offered if kind is not asked}))
        self.status = InputStatus(
            topic=self.status.topic,
            publishers=len(offered),
            reliability="" if asked is None else asked.name.lower(),
            incompatible=incompatible,
            optional=self.status.optional,
        )

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _choose(self, offered: set[ReliabilityPolicy]) -> ReliabilityPolicy | None:
        if self._wanted == "reliable":
            return ReliabilityPolicy.RELIABLE
        if self._wanted == "best_effort":
            return ReliabilityPolicy.BEST_EFFORT
        if not offered:
            return self._asked  # they may come back; nothing to change before they do
        if offered == {ReliabilityPolicy.RELIABLE}:
            return ReliabilityPolicy.RELIABLE
        return ReliabilityPolicy.BEST_EFFORT

    def _subscribe(self, asked: ReliabilityPolicy | None) -> None:
        self.close()
        self._asked = asked
        if asked is None:
            return
        self._subscription = self._node.create_subscription(
            self._type,
            self._topic,
            self._callback,
            QoSProfile(depth=_DEPTH, reliability=asked),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._warn),
        )

    def _warn(self, _event: Any) -> None:
        # With reliable_if_offered the next poll mends it.
        if self._wanted == "reliable":
            self._node.get_logger().warning(
                f"a publisher of {self.status.topic} does not offer reliable images and is not "
                "heard; set input_reliability to reliable_if_offered or change the publisher"
            )
