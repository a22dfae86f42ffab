"""What is said of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from finders import by_check, files, is_helpful, levels, only

from mmfusion_ros.checks import machine
from mmfusion_ros.checks.machine import check_gpu, check_machine
from mmfusion_ros.checks.subject import Setup

GIB = 1 << 30
CPU = "sys__devices__system__cpu__cpu0__cpufreq__"
CGROUP = "sys__fs__cgroup__"


def check(root, **options):
    return by_check(check_machine(Setup(root=root, **options)))


def test_this_machine_is_looked_at_without_an_error():
    found = check(Path("/"))
    assert "error" not in levels(found.values()).values()
    assert found["machine.cpu"].values["cores"] == len(os.sched_getaffinity(0))
    assert found["machine.disk"].values["free_bytes"] > 0
    assert all(map(is_helpful, found.values()))


def test_where_nothing_can_be_read_that_is_said(tmp_path):
    found = levels(check(tmp_path).values())
    assert found["machine.memory"] == found["machine.governor"] == "skipped"
    assert "error" not in found.values()


def test_more_work_than_cores_is_a_warning(tmp_path):
    cores = len(os.sched_getaffinity(0))
    files(tmp_path, proc__loadavg=f"{cores + 1}.5 3 2 1/234 5678")
    assert check(tmp_path)["machine.cpu"].level == "warning"
    files(tmp_path, proc__loadavg="0.0 3 2 1/234 5678")
    assert check(tmp_path)["machine.cpu"].level in {"ok", "note"}


@pytest.mark.parametrize(
    "limit",
    [
        {"cpu.max": "50000 100000"},
        {"cpu__cpu.cfs_quota_us": 50000, "cpu__cpu.cfs_period_us": 100000},
    ],
)
def test_a_containers_share_of_the_cores_counts(tmp_path, limit):
    files(tmp_path, **{CGROUP + name: value for name, value in limit.items()})
    finding = check(tmp_path)["machine.cpu"]
    assert finding.values["quota"] == 0.5
    assert finding.level == "note"


@pytest.mark.parametrize(
    "limit",
    [
        {"cpu.max": "max 100000"},
        {"cpu__cpu.cfs_quota_us": -1, "cpu__cpu.cfs_period_us": 100000},
        {"cpu.max": "what"},
    ],
)
def test_no_share_is_no_limit(tmp_path, limit):
    files(tmp_path, **{CGROUP + name: value for name, value in limit.items()})
    assert check(tmp_path)["machine.cpu"].values["quota"] is None


@pytest.mark.parametrize(
    ("governor", "driver", "level"),
    [
        ("performance", "acpi-cpufreq", "ok"),
        ("powersave", "acpi-cpufreq", "warning"),
        ("powersave", "intel_pstate", "ok"),
        ("schedutil", None, "ok"),
        ("powersave", None, "warning"),
    ],
)
def test_governors(tmp_path, governor, driver, level):
    files(tmp_path, **{CPU + "scaling_governor": governor})
    if driver:
        files(tmp_path, **{CPU + "scaling_driver": driver})
    assert check(tmp_path)["machine.governor"].level == level


def test_little_memory_is_a_warning_and_so_is_a_containers_rest(tmp_path):
    files(tmp_path, proc__meminfo=f"MemTotal: 9 kB\nMemAvailable: {100 << 10} kB")
    assert check(tmp_path)["machine.memory"].level == "warning"
    files(tmp_path, proc__meminfo=f"MemAvailable: {8 << 20} kB")
    assert check(tmp_path)["machine.memory"].level == "ok"
    files(tmp_path, **{CGROUP + "memory.max": 2 * GIB, CGROUP + "memory.current": 2 * GIB - 1})
    finding = check(tmp_path)["machine.memory"]
    assert (finding.level, finding.values["available_bytes"]) == ("warning", 1)


def test_a_container_without_limit_has_the_machines_memory(tmp_path):
    files(tmp_path, proc__meminfo=f"MemAvailable: {8 << 20} kB")
    files(tmp_path, **{CGROUP + "memory.max": "max", CGROUP + "memory.current": 5})
    assert check(tmp_path)["machine.memory"].values["available_bytes"] == 8 * GIB


def test_little_disk_is_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_LITTLE_DISK", 1 << 62)
    finding = check(tmp_path, folder=tmp_path)["machine.disk"]
    assert finding.level == "note"
    assert is_helpful(finding)


def test_another_c_library_is_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "keep_image_memory", lambda: False)
    assert check(tmp_path)["machine.malloc"].level == "note"


def gpu(root):
    return only(check_gpu(Setup(root=root)))


def test_no_gpu_is_fine(tmp_path):
    finding = gpu(tmp_path)
    assert finding.level == "ok"
    assert "no NVIDIA GPU here: the CPU engine is used" in finding.found


def test_a_gpu_in_part_is_a_note(tmp_path):
    files(tmp_path, dev__nvidia0="")
    finding = gpu(tmp_path)
    assert finding.level == "note"
    assert "nvidia0" in finding.found
    assert is_helpful(finding)


def test_a_whole_gpu_is_fine(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_loads", lambda _: True)
    files(tmp_path, dev__nvidia0="", dev__nvidia1="", proc__driver__nvidia__version="NVRM 570")
    finding = gpu(tmp_path)
    assert finding.level == "ok"
    assert finding.values["devices"] == ["nvidia0", "nvidia1"]


def test_a_library_that_is_not_there_does_not_load():
    assert machine._loads("libc.so.6")
    assert not machine._loads("libnothing_of_the_kind.so.1")
