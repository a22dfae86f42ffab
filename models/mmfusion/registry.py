"""Models by name, in the manner of timm: presets are data.

The networks themselves, and PyTorch, are imported when the first is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from mmfusion.efficientmfd.config import PRESETS as EFFICIENTMFD
from mmfusion.errors import ModelError
from mmfusion.haf.config import PRESETS as HAF
from mmfusion.s4fusion.config import PRESETS as S4FUSION

if TYPE_CHECKING:
    from torch import nn


class Role(str, Enum):
    """What a network does in the graph, as manifests and compositions call it."""

    FUSION = "fusion"
    SALIENCY = "saliency"
    DETECTION = "detection"

    def __str__(self) -> str:
        return self.value


class Family(NamedTuple):
    """One published system: its package, network class, the shapes it comes in, and its task."""

    package: str
    class_name: str
    presets: Mapping[str, Any]
    role: Role

    def module(self, name: str) -> ModuleType:
        """A module of the package, imported now."""
        return importlib.import_module(f"mmfusion.{self.package}.{name}")


FAMILIES = (
    Family("s4fusion", "S4Fusion", S4FUSION, Role.FUSION),
    Family("haf", "HAF", HAF, Role.SALIENCY),
    Family("efficientmfd", "EfficientMFD", EFFICIENTMFD, Role.DETECTION),
)


def list_models(role: Role | None = None) -> list[str]:
    """Names that `create_model` knows, all or those of one role."""
    families = [family for family in FAMILIES if role is None or role is family.role]
    return sorted(name for family in families for name in family.presets)


def create_model(name: str) -> nn.Module:
    """Build a network with fresh weights, in training mode as PyTorch's are.

    Call ``eval()`` before it computes: batch norms, and what `LumaFusion` makes of the log-odds
    that ``s4fusion_tiny`` gives, differ.

    Args:
        name: one of `list_models`.

    Raises:
        ModelError: if the name is unknown.
    """
    for family in FAMILIES:
        if name in family.presets:
            network_class = getattr(family.module("network"), family.class_name)
            network: nn.Module = network_class(family.presets[name])
            return network
    raise ModelError(f"unknown model {name!r}; expected one of: {', '.join(list_models())}")
