"""Models by name, in the manner of timm: presets are data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mmfusion.errors import ModelError
from mmfusion.s4fusion import S4Fusion, S4FusionConfig

if TYPE_CHECKING:
    from torch import nn

_PRESETS: Mapping[str, Callable[[], nn.Module]] = {
    # As published: 3.56 M parameters.
    "s4fusion": lambda: S4Fusion(S4FusionConfig()),
    # For CPUs and small boards: weights between the two pictures, see S4FusionConfig.blend.
    "s4fusion_tiny": lambda: S4Fusion(
        S4FusionConfig(
            channels=24,
            depths=(1, 1, 1),
            states=4,
            fusion_states=6,
            fusion_blocks=1,
            unused_published_layers=False,
            blend=True,
        )
    ),
}


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return sorted(_PRESETS)


def create_model(name: str) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: one of `list_models`.

    Raises:
        ModelError: if the name is unknown.
    """
    try:
        return _PRESETS[name]()
    except KeyError:
        raise ModelError(
            f"unknown model {name!r}; expected one of: {', '.join(list_models())}"
        ) from None
