"""Quality of service of every topic, as parameters change it.

By the parameters that ROS has for it: ``qos_overrides.<topic>.publisher.<policy>`` and
``qos_overrides.<topic>.subscription.<policy>``, with the topic's full name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import ParameterAlreadyDeclaredException, ParameterException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.parameters import RELIABILITIES

_RCLError = rclpy_implementation.RCLError

_POLICIES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.DURABILITY)
# An input's reliability is not among them: it may follow what the publishers offer.
SUBSCRIPTION_OVERRIDES = QoSOverridingOptions(_POLICIES)
PUBLISHER_OVERRIDES = QoSOverridingOptions((*_POLICIES, QoSPolicyKind.RELIABILITY))


@contextmanager
def overrides_explained(topic: str) -> Iterator[None]:
    """Say which parameter is wrong where rclpy says only that one is.

    Args:
        topic: full name of what is published or subscribed to inside.

    Raises:
        MmfusionError: if an override is not a value that its policy can have.
    """
    try:
        yield
    except _RCLError:  # a RuntimeError that is about something else
        raise
    except (RuntimeError, InvalidQosOverridesError, ParameterException) as error:
        raise MmfusionError(
            f"a parameter qos_overrides.{topic}.* is wrong: {error}; expected history keep_last or "
            "keep_all, depth a whole number, reliability reliable or best_effort, durability "
            "volatile or transient_local"
        ) from error


def wanted_reliability(node: Node, topic: str, default: str) -> str:
    """What reliability an input is to have.

    Args:
        node: whose parameters are looked at.
        topic: full name.
        default: where no parameter names this topic, one of RELIABILITIES.

    Raises:
        MmfusionError: if the parameter of this topic has another value.
    """
    name = f"qos_overrides.{topic}.subscription.reliability"
    descriptor = ParameterDescriptor(
        description=f"reliability for subscription `{topic}`",
        additional_constraints=f"one of {', '.join(RELIABILITIES)}",
        read_only=True,
    )
    value: Any
    try:
        value = node.declare_parameter(name, default, descriptor).value
    except ParameterAlreadyDeclaredException:
        value = node.get_parameter(name).value
    except ParameterException as error:
        raise MmfusionError(f"parameter {name}: {error}") from error
    if value not in RELIABILITIES:
        raise MmfusionError(
            f"parameter {name} is {value!r}; expected one of {', '.join(RELIABILITIES)}"
        )
    return str(value)
