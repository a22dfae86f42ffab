"""What setup.sh says on machines it cannot work on: one clear line, and nothing left behind."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the scripts are for Linux")

TOOLS = (
    *("bash", "cat", "cut", "dirname", "env", "find", "flock", "grep"),
    *("mkdir", "mv", "rm", "sha256sum", "sort", "tail", "xargs"),
)


class Machine:
    """A copy of the scripts and a PATH holding only what a test puts there."""

    def __init__(self, folder: Path, scripts: Path) -> None:
        self.root = folder / "checkout with spaces"
        self.bin = folder / "bin"
        self.bin.mkdir()
        shutil.copytree(scripts, self.root / "scripts")
        for name in TOOLS:
            if path := shutil.which(name):
                (self.bin / name).symlink_to(path)
        self.program("c++", "exit 0")
        self.program("uname", "case $1 in -m) echo x86_64 ;; *) echo Linux ;; esac")
        self.program("getconf", "echo glibc 2.39")
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "MMFUSION_ROS_ROOT": str(folder / "no-ros"),
        }

    def program(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
        return path

    def remove(self, name: str) -> None:
        (self.bin / name).unlink()

    def real_python(self, prelude: str = "") -> None:
        """Put this Python on the PATH; its probing script runs after the prelude."""
        python = Path(sys.base_prefix) / "bin" / f"python{sysconfig.get_python_version()}"
        if prelude:
            script = f'{{ echo {prelude!r}; cat; }} | exec {python} "$@"'
        else:
            script = f'exec {python} "$@"'
        self.program("python3", script)

    def setup(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "bash"), str(self.root / "scripts" / "setup.sh"), *arguments],
            env=self.environment | environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def refuses(self, *arguments: str, **environment: str) -> str:
        """Run setup.sh, expect it to refuse in one line and to leave nothing, return the line."""
        result = self.setup(*(arguments or ("robot",)), **environment)
        assert result.returncode == 1, result.stdout + result.stderr
        assert result.stdout == ""
        assert result.stderr.startswith("setup: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert not (self.root / ".venv").exists()
        return result.stderr


@pytest.fixture
def machine(tmp_path, repo_root):
    return Machine(tmp_path, repo_root / "scripts")


@pytest.mark.parametrize("arguments", [("",), ("car",), ("robot", "dev")])
def test_wrong_arguments(machine, arguments):
    assert "usage: scripts/setup.sh robot|dev" in machine.refuses(*arguments)


def test_wrong_architecture(machine):
    machine.program("uname", "case $1 in -m) echo aarch64 ;; *) echo Linux ;; esac")
    line = machine.refuses()
    assert "x86_64 only, this is aarch64" in line
    assert "/opt/ros" in line
    assert "Dockerfile" in line


def test_wrong_system(machine):
    machine.program("uname", "case $1 in -m) echo x86_64 ;; *) echo Darwin ;; esac")
    assert "Linux only, this is Darwin" in machine.refuses()


@pytest.mark.parametrize(
    ("script", "text"),
    [("echo glibc 2.17", "this is 2.17"), ("exit 1", "need glibc 2.28 or newer: use")],
)
def test_wrong_c_library(machine, script, text):
    machine.program("getconf", script)
    assert text in machine.refuses()


def test_missing_compiler(machine):
    machine.real_python()
    machine.remove("c++")
    assert "needs a C++ compiler" in machine.refuses()


def test_compiler_of_a_foreign_environment_that_is_gone(machine):
    machine.real_python()
    machine.remove("c++")
    assert "needs a C++ compiler" in machine.refuses(CXX="/opt/conda/bin/x86_64-conda-c++")


def test_no_python(machine):
    assert "needs Python 3.10 to 3.13" in machine.refuses()


def test_wrong_python_is_named_with_its_version(machine):
    machine.program("python3", "echo version 3.9")
    machine.program("python3.13", "exit 127  # a version manager's stub")
    line = machine.refuses()
    assert "needs Python 3.10 to 3.13" in line
    assert "found: python3 is 3.9" in line


@pytest.mark.parametrize("version", [(3, 9), (3, 14)])
def test_the_real_probe_refuses_other_versions(machine, version):
    machine.real_python(f"import sys; sys.version_info = {(*version, 0)}")
    assert f"python3 is {version[0]}.{version[1]}" in machine.refuses()


def test_python_without_venv_module(machine):
    machine.real_python('import sys; sys.modules["ensurepip"] = None')
    assert "lacks the venv module: install python3." in machine.refuses()


def test_python_without_headers(machine):
    machine.real_python("import os; os.path.exists = lambda path: False")
    assert "lacks its C headers: install python3." in machine.refuses()


def test_a_later_python_that_lacks_nothing_is_taken(machine):
    """It gets as far as making the environment, which this stand-in then fails at."""
    machine.program("python3", "echo version 3.9")
    machine.program("python3.12", '[[ $1 == - ]] || { echo "$0 $*"; exit 3; }')
    result = machine.setup("robot")
    assert result.returncode == 1
    assert "virtual environment" in result.stdout
    assert "failed" in result.stdout
    assert f"{machine.bin}/python3.12 -m venv" in result.stderr
    assert str(machine.root / ".venv" / "mmfusion" / "venv.log") in result.stderr


def test_active_environments_are_not_built_on(machine, tmp_path):
    other = tmp_path / "other" / "bin"
    other.mkdir(parents=True)
    (other / "python3").write_text("#!/bin/bash\necho wrong; exit 3\n")
    (other / "python3").chmod(0o755)
    machine.program("python3", '[[ $1 == - ]] || { echo "$0 $* [$PYTHONPATH]"; exit 3; }')
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        result = machine.setup(
            "robot",
            PATH=f"{other}{os.pathsep}{machine.bin}",
            PYTHONPATH="/elsewhere",
            **{variable: str(other.parent)},
        )
        assert f"{machine.bin}/python3 -m venv" in result.stderr
        assert "/elsewhere" not in result.stderr


def test_a_failed_step_reaches_a_script_that_sources_it_but_not_its_shell_options(machine):
    script = f'source "{machine.root}/scripts/setup.sh" robot || echo "status $? options $-"'
    result = subprocess.run(
        [str(machine.bin / "bash"), "-c", script],
        env=machine.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.startswith("status 1 options ")
    assert "e" not in result.stdout.split()[-1]
    assert "needs Python" in result.stderr


def test_an_environment_with_another_ros_is_not_reused(machine):
    machine.real_python()
    python = machine.root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(machine.bin / "python3")
    state = machine.root / ".venv" / "mmfusion"
    state.mkdir()
    (state / "made_for").write_text("/opt/ros/jazzy\n")
    result = machine.setup("robot")
    assert result.returncode == 1
    assert "was made for /opt/ros/jazzy, not ROS 2 from PyPI: remove it" in result.stderr


def test_patching_replaces_the_builders_folders_and_nothing_else(repo_root):
    patched = runpy.run_path(str(repo_root / "scripts" / "patch_ros_wheels.py"))["patched"]
    built = (
        'INCLUDES "/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include;'
        '/opt/python/cp313-cp313t/include/python3.13t;/usr/include"'
    )
    ours = 'INCLUDES "/n;/p;/usr/include"'
    assert patched(built, numpy_headers="/n", python_headers="/p") == ours
    assert patched(ours, numpy_headers="/n", python_headers="/p") == ours


def test_a_patched_file_is_a_new_file(repo_root, tmp_path):
    """A hard link to a cache must keep the old text."""
    replace = runpy.run_path(str(repo_root / "scripts" / "patch_ros_wheels.py"))["replace_file"]
    installed, cached = tmp_path / "installed", tmp_path / "cached"
    cached.write_text("old")
    cached.chmod(0o644)
    installed.hardlink_to(cached)
    replace(installed, "new")
    assert (installed.read_text(), cached.read_text()) == ("new", "old")
    assert installed.stat().st_mode == cached.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cached", "installed"]


def test_constraints_pin_every_ros_wheel(repo_root):
    lines = (repo_root / "scripts" / "constraints.txt").read_text().splitlines()
    ros = [line for line in lines if line.startswith("ros-")]
    assert len(ros) > 90
    assert all(line.count("==") == 1 for line in ros)
    pinned = {line.split("==")[0] for line in ros}
    for name in ("robot", "build"):
        text = (repo_root / "scripts" / f"requirements-{name}.txt").read_text()
        wanted = {line.split("[")[0] for line in text.splitlines() if line.startswith("ros-")}
        assert wanted <= pinned


def test_the_robot_gets_no_torch(repo_root):
    for name in ("robot", "build"):
        text = (repo_root / "scripts" / f"requirements-{name}.txt").read_text()
        assert not [line for line in text.splitlines() if line.startswith("torch")]
