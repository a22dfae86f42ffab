"""What is said of the kernel's buffers."""

from __future__ import annotations

import pytest
from finders import files, is_helpful, only

from mmfusion_ros.checks.kernel import check_kernel_buffers
from mmfusion_ros.checks.subject import Setup

LARGE = {
    "proc__sys__net__core__rmem_max": 33554432,
    "proc__sys__net__core__wmem_max": 33554432,
    "proc__sys__net__ipv4__ipfrag_high_thresh": 134217728,
    "proc__sys__net__ipv4__ipfrag_time": 3,
}
CYCLONE = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}


def check(root, environment=None):
    return only(check_kernel_buffers(Setup(root=root, environment=environment or {})))


def test_large_buffers_are_fine(tmp_path):
    finding = check(files(tmp_path, **LARGE))
    assert finding.level == "ok"
    assert finding.values["net.core.rmem_max"] == 33554432


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proc__sys__net__core__rmem_max", 212992),
        ("proc__sys__net__core__wmem_max", 212992),
        ("proc__sys__net__ipv4__ipfrag_high_thresh", 4194304),
        ("proc__sys__net__ipv4__ipfrag_time", 30),
    ],
)
def test_small_ones_are_advice_with_shared_memory_and_a_warning_with_cyclone(tmp_path, name, value):
    root = files(tmp_path, **{**LARGE, name: value})
    advice, warning = check(root), check(root, CYCLONE)
    assert (advice.level, warning.level) == ("note", "warning")
    for finding in (advice, warning):
        assert name.rpartition("__")[2] in finding.found
        assert is_helpful(finding)


def test_what_a_container_hides_is_left_out(tmp_path):
    assert check(tmp_path).level == "skipped"
    hidden = {key: value for key, value in LARGE.items() if "ipv4" not in key}
    assert check(files(tmp_path, **hidden)).level == "ok"
    files(tmp_path, proc__sys__net__core__rmem_max="what?")
    assert check(tmp_path).level == "ok"
