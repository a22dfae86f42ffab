"""What the package imports is what it says that it needs."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ros2_ws" / "src" / "mmfusion_ros"
# Where the module is not named like what is installed.
PROJECTS = {"cv2": "opencv-python-headless", "yaml": "PyYAML"}
# Part of Jinja's interface; for type checkers alone.
NOT_OURS = {"markupsafe", "typing_extensions"}
# Looked for, and done without where they are not.
OPTIONAL = {
    *("backports", "compression", "zstandard", "distributed", "mmfusion", "onnx", "openvino"),
    *("tensorrt", "tensorrt_rtx", "cuda"),
}


def required() -> list[str]:
    """The lines of install_requires."""
    tree = ast.parse((PACKAGE / "setup.py").read_text())
    (lines,) = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "install_requires"
    )
    return list(ast.literal_eval(lines))


def imported() -> set[str]:
    """Modules of others, but for those of ROS, which are the business of package.xml."""
    found = set()
    for path in (PACKAGE / "mmfusion_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    ros = re.findall(r"<exec_depend>(.*?)<", (PACKAGE / "package.xml").read_text())
    return found - sys.stdlib_module_names - set(ros) - {"mmfusion_ros"} - OPTIONAL - NOT_OURS


def test_everything_imported_is_required():
    projects = {re.split("[<>=]", line)[0] for line in required()}
    assert {PROJECTS.get(module, module) for module in imported()} - projects == set()


def test_a_robot_gets_the_same():
    lines = (ROOT / "scripts" / "requirements-robot.txt").read_text().splitlines()
    others = [line for line in lines if line and not line.startswith(("#", "ros-"))]
    assert sorted(others) == sorted(required())
