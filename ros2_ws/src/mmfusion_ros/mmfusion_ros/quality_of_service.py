"""Quality of service of every topic, as parameters change it.

By the parameters that ROS has for it: ``qos_overrides.<topic>.publisher.<policy>`` and
``qos_overrides.<topic>.subscription.<policy>``, with the topic's full name. They are declared here
and not by rclpy, which declares those of a subscription when it is made, too late to say at the
start that one is wrong, and knows no reliability that follows what publishers offer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import ParameterAlreadyDeclaredException, ParameterException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from mmfusion_ros.core.errors import MmfusionError

_RELIABILITIES = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
}
_POLICIES: dict[str, dict[str, Any]] = {
    "history": {"keep_last": HistoryPolicy.KEEP_LAST, "keep_all": HistoryPolicy.KEEP_ALL},
    "durability": {
        "volatile": DurabilityPolicy.VOLATILE,
        "transient_local": DurabilityPolicy.TRANSIENT_LOCAL,
    },
}


def publisher_qos(node: Node, topic: str, qos: QoSProfile) -> QoSProfile:
    """What a publisher is to offer.

    Args:
        node: whose parameters are declared and read.
        topic: full name.
        qos: what it offers where no parameter says otherwise.

    Raises:
        MmfusionError: if a parameter has a value that its policy cannot have.
    """
    prefix = f"qos_overrides.{topic}.publisher"
    chosen = _overridden(node, prefix, qos)
    default = next(name for name, kind in _RELIABILITIES.items() if kind is qos.reliability)
    name = _choice(node, f"{prefix}.reliability", default, tuple(_RELIABILITIES))
    chosen.reliability = _RELIABILITIES[name]
    return chosen


def subscription_qos(
    node: Node, topic: str, qos: QoSProfile, reliability: str, reliabilities: tuple[str, ...]
) -> tuple[QoSProfile, str]:
    """What a subscription is to ask for.

    Args:
        node: whose parameters are declared and read.
        topic: full name.
        qos: what it asks for where no parameter says otherwise, but for the reliability.
        reliability: where no parameter says otherwise.
        reliabilities: what that may be.

    Returns:
        The profile and the reliability.

    Raises:
        MmfusionError: if a parameter has a value that its policy cannot have.
    """
    prefix = f"qos_overrides.{topic}.subscription"
    chosen = _overridden(node, prefix, qos)
    return chosen, _choice(node, f"{prefix}.reliability", reliability, reliabilities)


def warn_of_idle_overrides(node: Node) -> None:
    """Log the ``qos_overrides`` parameters that a node was given and has no use for.

    Call it when all its publishers and subscriptions have been asked about.
    """
    # rclpy tells of them in no other way: those that nobody declared are no parameters.
    given: Mapping[str, Any] = getattr(node, "_parameter_overrides", {})
    for name in sorted(given):
        if name.startswith("qos_overrides.") and not node.has_parameter(name):
            policies = ", ".join(("reliability", *_POLICIES, "depth"))
            node.get_logger().warning(
                f"parameter {name} has no effect; expected qos_overrides.TOPIC.publisher.POLICY or "
                f"qos_overrides.TOPIC.subscription.POLICY, with the full name of a topic of "
                f"{node.get_fully_qualified_name()} as it is after remapping, and one of {policies}"
            )


def _overridden(node: Node, prefix: str, qos: QoSProfile) -> QoSProfile:
    chosen = copy.copy(qos)
    for policy, kinds in _POLICIES.items():
        default = next(name for name, kind in kinds.items() if kind is getattr(qos, policy))
        setattr(chosen, policy, kinds[_choice(node, f"{prefix}.{policy}", default, tuple(kinds))])
    depth = _parameter(node, f"{prefix}.depth", qos.depth, "a whole number, at least 1")
    if depth < 1:
        raise MmfusionError(f"parameter {prefix}.depth is {depth}; expected at least 1")
    chosen.depth = depth
    return chosen


def _choice(node: Node, name: str, default: str, choices: tuple[str, ...]) -> str:
    expected = f"one of {', '.join(choices)}"
    value: str = _parameter(node, name, default, expected)
    if value not in choices:
        raise MmfusionError(f"parameter {name} is {value!r}; expected {expected}")
    return value


def _parameter(node: Node, name: str, default: Any, expected: str) -> Any:
    descriptor = ParameterDescriptor(
        description="quality of service, see the concept of that name in the ROS documentation",
        additional_constraints=expected,
        read_only=True,
    )
    try:
        return node.declare_parameter(name, default, descriptor).value
    except ParameterAlreadyDeclaredException:
        return node.get_parameter(name).value
    except ParameterException as error:
        raise MmfusionError(f"parameter {name}: {error}; expected {expected}") from error
