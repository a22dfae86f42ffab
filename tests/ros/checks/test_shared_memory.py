"""What is said of /dev/shm."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from finders import by_check, is_helpful, levels

from mmfusion_ros.checks.shared_memory import check_shared_memory
from mmfusion_ros.checks.subject import Setup

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def shm(tmp_path):
    folder = tmp_path / "dev" / "shm"
    folder.mkdir(parents=True)
    return folder


def check(root: Path):
    return by_check(check_shared_memory(Setup(root=root)))


def test_a_missing_folder_is_an_error(tmp_path):
    found = check(tmp_path)
    assert levels(found.values()) == {
        "shared_memory.size": "error",
        "shared_memory.leftovers": "skipped",
    }
    assert is_helpful(found["shared_memory.size"])


def test_a_large_folder_is_fine(shm, tmp_path):
    found = check(tmp_path)
    assert set(levels(found.values()).values()) == {"ok"}
    assert found["shared_memory.size"].values["free_bytes"] > 0
    assert list(shm.iterdir()) == []


def test_only_segments_whose_owner_is_dead_count(shm, tmp_path):
    for name in ("fastdds_alive", "fastdds_dead", "fastrtps_dead"):
        (shm / name).write_bytes(bytes(1000))
        (shm / f"{name}_el").touch()
    (shm / "fastdds_without_lock").touch()
    (shm / "fastdds_gone_el").touch()
    (shm / "fast_food_el").touch()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(shm / "fastdds_alive_el")], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        found = check(tmp_path)["shared_memory.leftovers"]
        holder.kill()
    assert found.values == {"bytes": 2000, "files": 2}
    assert str(found.level) == "note"
    assert is_helpful(found)


def test_a_segment_that_is_removed_meanwhile_does_not_count(shm, tmp_path, monkeypatch):
    for name in ("fastdds_one", "fastdds_two"):
        (shm / name).write_bytes(bytes(1000))
        (shm / f"{name}_el").touch()
    lock = fcntl.flock

    def clean(file, how):
        (shm / "fastdds_one").unlink(missing_ok=True)
        return lock(file, how)

    monkeypatch.setattr(fcntl, "flock", clean)
    assert check(tmp_path)["shared_memory.leftovers"].values == {"bytes": 1000, "files": 1}


def test_many_leftovers_are_a_warning(shm, tmp_path):
    with (shm / "fastdds_dead").open("wb") as file:
        file.truncate(64 << 20)
    (shm / "fastdds_dead_el").touch()
    assert str(check(tmp_path)["shared_memory.leftovers"].level) == "warning"


@pytest.mark.ros
def test_a_killed_program_leaves_segments_that_are_found(tmp_path):
    """The real folder: what the files of Fast DDS are named and how it locks them."""
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    code = "import rclpy, time; rclpy.init(); n = rclpy.create_node('n'); print(1, flush=True); "
    code += "time.sleep(60)"
    before = check(Path("/"))["shared_memory.leftovers"].values.get("files", 0)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"1\n"
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGKILL)
    names = {line.rpartition("/")[2] for line in maps.splitlines() if "/dev/shm/fast" in line}
    try:
        assert names
        assert check(Path("/"))["shared_memory.leftovers"].values["files"] > before
    finally:
        for name in names:
            if "_port" not in name:  # those may be shared with programs that live
                for path in (Path("/dev/shm", name), Path("/dev/shm", f"{name}_el")):
                    path.unlink(missing_ok=True)


def unshared(mount: str) -> dict[str, dict]:
    """The findings of a doctor that has another /dev/shm, by check."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    doctor = f"{sys.executable} -m mmfusion_ros.doctor --quick --json"
    inside = f"mount -t tmpfs {mount} tmpfs /dev/shm && exec {doctor}"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", inside],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if not done.stdout.startswith("{"):
        pytest.skip(f"no other /dev/shm can be mounted here: {done.stderr}")
    report = json.loads(done.stdout)
    assert done.returncode == int(report["failed"])
    return {finding["check"]: finding for finding in report["findings"]}


@pytest.mark.ros
@pytest.mark.parametrize(
    ("mount", "words"), [("-o size=1m", "of it free"), ("-o ro", "cannot be written to")]
)
def test_a_tiny_or_read_only_one_is_an_error_as_is_the_segment_missing_for_it(mount, words):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    found = unshared(mount)
    assert found["shared_memory.size"]["level"] == "error"
    assert words in found["shared_memory.size"]["found"]
    assert found["dds.segment"]["level"] == "error"


@pytest.mark.ros
def test_a_containers_usual_size_holds_our_segments():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    found = unshared("-o size=64m")
    assert found["shared_memory.size"]["level"] == "ok"
    assert found["dds.segment"]["level"] == "ok"
