"""Subscriptions that are as reliable as the cameras allow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from mmfusion_ros.core.transports import TRANSPORTS
from mmfusion_ros.parameters import RELIABILITIES
from mmfusion_ros.quality_of_service import subscription_qos
from mmfusion_ros.stock_filters import subscribe

_DEPTH = 5
_UNKNOWN = "_UNKNOWN_"  # in the names that rcl gives until it has heard of a node


@dataclass(frozen=True)
class InputStatus:
    """What is known about the publishers of an input.

    Attributes:
        topic: full name.
        publishers: how many there are.
        reliability: what is asked of them; empty while there is no subscription.
        unheard: a sentence for each publisher that is not heard, saying why and what to change.
        optional: whether the node does as well without it.
        hint: where the images may be instead, while nobody publishes here; empty if not known.
    """

    topic: str
    publishers: int
    reliability: str
    unheard: tuple[str, ...]
    optional: bool = False
    hint: str = ""


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
            reliability: reliable_if_offered, best_effort or reliable, where no qos_overrides
                parameter says otherwise.
            callback: for each message.
            optional: whether the node does as well without it.

        Raises:
            MmfusionError: if a qos_overrides parameter of the topic is wrong.
        """
        self._node = node
        self._type = message_type
        self._type_name = f"{message_type.__module__.partition('.')[0]}/msg/{message_type.__name__}"
        self._topic = topic
        self._callback = callback
        self._subscription: Subscription[Any] | None = None
        self._asked: ReliabilityPolicy | None = None
        self._said: set[str] = set()
        name = node.resolve_topic_name(topic)
        self.status = InputStatus(name, 0, "", (), optional)
        self._qos, self._wanted = subscription_qos(
            node, name, QoSProfile(depth=_DEPTH), reliability, RELIABILITIES
        )
        self.poll()

    def poll(self) -> None:
        """Look at the publishers and subscribe accordingly; call it now and then."""
        # A list: one node may have several publishers that offer different things.
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        asked = self._choose(
            {info.qos_profile.reliability for info in publishers if self._is_of_type(info)}
        )
        if asked is not self._asked:
            self._subscribe(asked)
        reasons = {reason for info in publishers if (reason := self._why_unheard(info))}
        self.status = InputStatus(
            topic=self.status.topic,
            publishers=len(publishers),
            reliability="" if asked is None else asked.name.lower(),
            unheard=tuple(sorted(reasons)),
            optional=self.status.optional,
            hint="" if publishers or self.status.optional else self._look_elsewhere(),
        )
        for reason in sorted(reasons - self._said):
            self._node.get_logger().warning(reason)
        self._said = reasons

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
        qos = copy.copy(self._qos)
        qos.reliability = asked
        self._subscription = subscribe(
            self._node,
            self._type,
            self._topic,
            self._callback,
            qos,
            # Incompatible publishers are told of by `poll`, which also says what to do.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )

    def _is_of_type(self, publisher: TopicEndpointInfo) -> bool:
        # While a publisher is being discovered, its type can be unknown.
        kind = publisher.topic_type
        return "/" not in kind or kind == self._type_name

    def _why_unheard(self, publisher: TopicEndpointInfo) -> str:
        """Why a publisher is not heard, and what to change; empty if it is."""
        who = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
        if _UNKNOWN in who:
            who = "a publisher of a node unknown so far"
        topic = self.status.topic
        if not self._is_of_type(publisher):
            return (
                f"{who} publishes {publisher.topic_type} on {topic}, expected {self._type_name}; "
                "set the topic and transport parameters of this camera"
            )
        if self._subscription is None:
            return ""
        asked = self._subscription.qos_profile
        verdict, reason = qos_check_compatible(publisher.qos_profile, asked)
        if verdict != QoSCompatibility.ERROR:  # equal to it, but not the same object
            return ""
        reason = reason.removeprefix("ERROR: ").rstrip("; \n")
        return (
            f"{who} is not heard on {topic}, as it does not offer what is asked of it ({reason}); "
            f"set qos_overrides.{topic}.subscription.* or change the publisher"
        )

    def _look_elsewhere(self) -> str:
        """Whether somebody publishes the images on a topic of another transport."""
        base = self.status.topic
        for transport in TRANSPORTS:
            base = base.removesuffix(f"/{transport}")
        others = [base, *(f"{base}/{transport}" for transport in TRANSPORTS[1:])]
        found = [
            name
            for name in others
            if name != self.status.topic and self._node.count_publishers(name)
        ]
        if not found:
            return ""
        return f"somebody does on {', '.join(found)}: set the transport parameter of this camera"
