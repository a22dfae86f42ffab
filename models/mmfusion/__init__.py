"""Networks that fuse colour, depth and thermal images: build, train, measure, export.

Importing this package loads no PyTorch; the functions below do when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmfusion.errors import MmfusionError

if TYPE_CHECKING:
    from mmfusion.published import load_published
    from mmfusion.registry import create_model, list_models

__all__ = ["MmfusionError", "create_model", "list_models", "load_published"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in {"create_model", "list_models"}:
        from mmfusion import registry  # noqa: PLC0415

        return getattr(registry, name)
    if name == "load_published":
        from mmfusion.published import load_published  # noqa: PLC0415

        return load_published
    raise AttributeError(f"module 'mmfusion' has no attribute {name!r}")
