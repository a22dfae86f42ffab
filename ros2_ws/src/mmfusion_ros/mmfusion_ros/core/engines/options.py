"""How an engine is to be opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def half_of_the_cores() -> int:
    """Threads of a CPU backend, where nobody says.

    The other half is for camera drivers; small convolutions gain little from it anyway.
    """
    return max(1, len(os.sched_getaffinity(0)) // 2)


@dataclass(frozen=True)
class EngineOptions:
    """What a user chooses about the engine.

    Attributes:
        backend: one of `mmfusion_ros.core.engines.BACKENDS`.
        precision: one of `PRECISIONS`. Anything below fp32 opens only if its outputs on the
            sample frames stay within the artifact's tolerances.
        threads: CPU threads of one run; 0 leaves it to the backend.
        cache: folder of built engines and of what was measured on them; None for
            ``mmfusion/engines`` in the user's cache folder.
        samples: sample frames (``.npz``) that reduced precision is compared on; None for none,
            then reduced precision must have been measured before.
        fallback: backend that takes over, in fp32, if this one cannot be opened, misses its
            tolerances or fails while running; "" for none.
        device_id: NVIDIA GPU that TensorRT runs on, as CUDA numbers them.
        hardware_compatible: build a TensorRT engine that also runs on other GPUs of this one's
            compute capability. One that is there already is used either way.
    """

    backend: str = "auto"
    precision: str = "fp32"
    threads: int = 0
    cache: Path | None = None
    samples: Path | None = None
    fallback: str = ""
    device_id: int = 0
    hardware_compatible: bool = False

    @property
    def cache_folder(self) -> Path:
        """The folder of the cache; it need not be there yet."""
        if self.cache is not None:
            return self.cache
        return (
            Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmfusion/engines"
        )
