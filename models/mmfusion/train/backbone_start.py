"""What the backbone of a network starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.errors import ModelError
from mmfusion.haf.network import HAF
from mmfusion.train.pretrained import load_pretrained

FRESH = "none"
CACHED = "cached"


def start_backbone(network: EfficientMFD | HAF, weights: str) -> dict[str, Any]:
    """Give a network's backbone pretrained weights.

    Args:
        network: whose configuration names the backbone.
        weights: a file of them, see `load_pretrained`; "cached" for what timm or torchvision has
            fetched earlier; "none" to leave the fresh ones.

    Returns:
        What was loaded, for the record of a training.

    Raises:
        ModelError: if there are no weights, they do not fit, or the network needs some.
    """
    if weights == FRESH:
        if isinstance(network, EfficientMFD) and network.config.frozen_start:
            raise ModelError(
                f"backbone_weights is {FRESH!r}, but the network keeps stem and batch norms of "
                f"{network.config.backbone} as they are; expected a file of pretrained weights or "
                f"{CACHED!r}: name one, or start from a whole network by --initial"
            )
        return {}
    path = None if weights == CACHED else Path(weights)
    if path is not None and not path.is_file():
        raise ModelError(
            f"backbone_weights is {weights!r}, which is no file; expected a file of weights of "
            f"{network.config.backbone}, {CACHED!r} or {FRESH!r}"
        )
    pretrained = load_pretrained(network.config.backbone, path, advice=" (backbone_weights)")
    network.start_from(pretrained.network)
    return {"backbone_sha256": pretrained.sha256}
