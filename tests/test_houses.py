"""The two houses do not reach into each other.

The ROS package runs where no PyTorch is, the networks train where no ROS is, and the core of
the ROS package can be used and tested without ROS.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ROOT / "models" / "mmfusion"
ROBOT = ROOT / "ros2_ws" / "src" / "mmfusion_ros" / "mmfusion_ros"

TORCH = {"torch", "torchvision", "torch_tensorrt", "timm"}
ROS = {
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "message_filters",
    "mmfusion_msgs",
    "rcl_interfaces",
    "rclpy",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "tf2_ros",
    "vision_msgs",
    "visualization_msgs",
}


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """Yield the absolute dotted names a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # "from mmfusion import metrics" imports mmfusion.metrics.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_the_houses_stand_where_this_test_looks():
    assert (NETWORKS / "__init__.py") in sources(NETWORKS)
    assert (ROBOT / "__init__.py") in sources(ROBOT)


@pytest.mark.parametrize("path", sources(ROBOT), ids=name_of)
def test_robot_names_no_torch_and_no_network(path):
    names = set(imported(path))
    assert not [name for name in names if within(name, TORCH)]
    foreign = [name for name in names if within(name, {"mmfusion"})]
    assert not [name for name in foreign if not within(name, {"mmfusion.metrics"})]


@pytest.mark.parametrize("path", sources(ROBOT / "core"), ids=name_of)
def test_core_names_no_ros(path):
    assert not [name for name in imported(path) if within(name, ROS)]


@pytest.mark.parametrize("path", sources(NETWORKS), ids=name_of)
def test_networks_name_no_ros(path):
    names = set(imported(path))
    assert not [name for name in names if within(name, ROS | {"mmfusion_ros"})]


IMPORT_ALL = """
import importlib, importlib.abc, json, pkgutil, sys

package, blocked = sys.argv[1], set(sys.argv[2:])

class Blocked(ImportError):
    pass

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise Blocked(f"{name} must not be needed here", name=name)

sys.meta_path.insert(0, Wall())
failures = {}
importlib.import_module(package)
modules = pkgutil.walk_packages(sys.modules[package].__path__, package + ".", onerror=lambda _: 0)
for module in [package, *(found.name for found in modules)]:
    try:
        importlib.import_module(module)
    except Blocked as error:
        failures[module] = str(error)
    except ImportError as error:
        # Not installed here is no fault of the house; what the wall stops is.
        print(f"{module}: {error}", file=sys.stderr)
print(json.dumps(failures))
"""


def import_all(package: str, blocked: set[str]) -> dict[str, str]:
    """Import every module of a package where some packages do not exist; return the failures."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package, *sorted(blocked)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    failures: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
    return failures


def test_robot_imports_without_torch():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    assert import_all("mmfusion_ros", TORCH) == {}


def test_core_imports_without_ros_and_torch():
    assert import_all("mmfusion_ros.core", TORCH | ROS) == {}


def test_metrics_import_without_torch():
    assert import_all("mmfusion.metrics", TORCH | ROS) == {}


def test_networks_import_without_ros():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    assert import_all("mmfusion", ROS | {"mmfusion_ros"}) == {}


START = """
import sys
if sys.argv[1] == "walled":
    sys.modules.update(dict.fromkeys(sys.argv[3:]))
for module in sys.argv[2].split():
    __import__(module)
loaded = [name for name in sys.argv[3:] if sys.modules.get(name) is not None]
sys.exit(f"loaded {loaded}" if loaded else 0)
"""


@pytest.mark.parametrize("how", ["walled", "open"])
def test_networks_package_and_command_line_start_without_torch(how):
    """It need not be there, and where it is, `--help` does not wait for it."""
    has_cli = (NETWORKS / "cli.py").is_file() or (NETWORKS / "cli").is_dir()
    modules = "mmfusion mmfusion.cli" if has_cli else "mmfusion"
    result = subprocess.run(
        [sys.executable, "-c", START, how, modules, *sorted(TORCH)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
