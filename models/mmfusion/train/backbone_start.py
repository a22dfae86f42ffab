"""What the backbone of a network starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmfusion.efficientmfd.network import EfficientMFD
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
        ModelError: if there are no weights, or they do not fit.
    """
    if weights == FRESH:
        return {}
    pretrained = load_pretrained(
        network.config.backbone, None if weights == CACHED else Path(weights)
    )
    network.start_from(pretrained.network)
    return {"backbone_sha256": pretrained.sha256}
