"""What a record calls the machine of a training."""

from __future__ import annotations

import platform

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.train import hardware
from mmfusion.train.hardware import device_name, processor_name

pytestmark = pytest.mark.torch
X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 33
model name\t: AMD Ryzen 9 5950X 16-Core Processor
power management: ts ttp tm

processor\t: 1
vendor_id\t: AuthenticAMD
model\t\t: 33
model name\t: AMD Ryzen 9 5950X 16-Core Processor
"""
SMALL, LARGE = "0xd05", "0xd0b"


def core(number, part):
    return f"""\
processor\t: {number}
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part}
CPU revision\t: 0

"""


ARM = core(0, LARGE) + core(1, LARGE)
UNEQUAL = core(0, SMALL) + core(1, LARGE) + core(2, SMALL)
BOARD = ARM + "Revision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
NAMED = "processor\t: 0\nmodel name\t: ARMv7 Processor rev 3 (v7l)\nCPU part\t: 0xd08\n"


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (X86, "AMD Ryzen 9 5950X 16-Core Processor"),
        (ARM, "CPU implementer 0x41 CPU part 0xd0b"),
        (UNEQUAL, "CPU implementer 0x41 CPU part 0xd05, CPU implementer 0x41 CPU part 0xd0b"),
        (BOARD, "CPU implementer 0x41 CPU part 0xd0b, Raspberry Pi 5 Model B Rev 1.0"),
        (NAMED, "ARMv7 Processor rev 3 (v7l)"),
        ("processor\t: 0\nmodel name\t:\n", ""),
        ("", ""),
    ],
    ids=["x86", "Arm", "two kinds of cores", "board", "named Arm", "no name", "nothing"],
)
def test_a_processor_has_the_name_that_the_kernel_tells(cpuinfo, name):
    assert processor_name(cpuinfo) == name


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (ARM, "CPU, aarch64, CPU implementer 0x41 CPU part 0xd0b"),
        ("", "CPU, aarch64, a processor"),
        (None, "CPU, aarch64, a processor"),
    ],
    ids=["named", "not named", "no cpuinfo"],
)
def test_a_cpu_has_what_name_there_is(cpuinfo, name, tmp_path, monkeypatch):
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "processor", lambda: "a processor")
    assert device_name(torch.device("cpu")) == name


def test_what_says_no_more_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "absent")
    for told in (platform.machine(), ""):
        monkeypatch.setattr(platform, "processor", lambda told=told: told)
        assert device_name(torch.device("cpu")) == f"CPU, {platform.machine()}"


def test_a_gpu_has_the_name_that_cuda_tells(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(torch.device("cuda", 1)) == "GPU 1"
