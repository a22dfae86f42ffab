"""The selective scan as a plugin of TensorRT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ScanPlugin:
    """Whether a plugin takes the nodes of the selective scan.

    Attributes:
        digest: of its code; empty if there is none.
        reason: why there is none; empty if there is one.
    """

    digest: str = ""
    reason: str = ""

    @property
    def registered(self) -> bool:
        """Whether TensorRT knows the plugin now."""
        return bool(self.digest)


def register_scan_plugin(tensorrt: Any, compute_capability: tuple[int, int]) -> ScanPlugin:
    """Let TensorRT know the plugin, before a graph is parsed or an engine loaded.

    Args:
        tensorrt: the module.
        compute_capability: that its kernel is to be for.
    """
    del tensorrt, compute_capability
    return ScanPlugin(reason="this version has no kernel for it")
