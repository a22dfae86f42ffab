"""Point the CMake exports of the ROS wheels at this environment's headers.

The wheels' exported targets name the include folders of the machine that built them, so
CMake refuses every interface package that depends on one of theirs. Run with the Python of the
environment that holds the wheels; running it again changes nothing.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

_BUILDER = r"/opt/python/cp\d+-cp\d+t?"
_NUMPY_HEADERS = re.compile(
    _BUILDER + r"/lib/python3\.\d+t?/site-packages/numpy/(?:_core|core)/include"
)
_PYTHON_HEADERS = re.compile(_BUILDER + r"/include/python3\.\d+t?")


def patched(text: str, *, numpy_headers: str, python_headers: str) -> str:
    """Return ``text`` with the builder's include folders replaced."""
    text = _NUMPY_HEADERS.sub(lambda _: numpy_headers, text)
    return _PYTHON_HEADERS.sub(lambda _: python_headers, text)


def replace_file(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as a new file.

    Some installers hard-link package files from a cache shared between environments;
    writing in place would change them all.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(temporary).chmod(path.stat().st_mode)
    Path(temporary).replace(path)


def main() -> None:
    """Patch every Python export below ``sys.prefix`` and print how many were changed."""
    numpy_headers = Path(np.get_include()).as_posix()
    python_headers = Path(sysconfig.get_path("include")).as_posix()
    changed = 0
    pattern = "share/*/cmake/export_*__rosidl_generator_pyExport.cmake"
    for path in sorted(Path(sys.prefix).glob(pattern)):
        before = path.read_text(encoding="utf-8")
        after = patched(before, numpy_headers=numpy_headers, python_headers=python_headers)
        if after != before:
            replace_file(path, after)
            changed += 1
    sys.stdout.write(f"patched {changed} CMake exports\n")


if __name__ == "__main__":
    main()
