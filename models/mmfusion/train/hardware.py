"""What a training runs on, by name."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")  # of Linux
_NAME, _BOARD, _MAKER, _CORE = "model name", "Model", "CPU implementer", "CPU part"


def device_name(device: torch.device) -> str:
    """GPU as CUDA names it; or ``CPU``, architecture and processor, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        told = processor_name(_CPUINFO.read_text(errors="replace"))
    except OSError:
        told = ""
    parts = ("CPU", platform.machine(), told or platform.processor())
    return ", ".join(dict.fromkeys(filter(None, parts)))


def processor_name(cpuinfo: str) -> str:
    """What the kernel says of its processors; "" if it names none.

    x86 has the model's name. Most Arm kernels have numbers instead: of who made each kind of core,
    and of which kind it is; some of them name the board.

    Args:
        cpuinfo: content of ``/proc/cpuinfo``.
    """
    names: list[str] = []
    for block in cpuinfo.split("\n\n"):  # one for each processor, and perhaps one for the board
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        numbers = " ".join(f"{key} {fields[key]}" for key in (_MAKER, _CORE) if key in fields)
        names += (fields.get(_NAME) or numbers, fields.get(_BOARD, ""))
    return ", ".join(dict.fromkeys(filter(None, names)))
