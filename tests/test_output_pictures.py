"""The pictures of the documentation can be made, and are small."""

from __future__ import annotations

import re
import subprocess
import sys

import cv2


def test_each_picture_of_the_page_is_made(repo_root, tmp_path):
    script = repo_root / "scripts" / "output_pictures.py"
    subprocess.run(
        [sys.executable, str(script), "--frame", "0", "--out", str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    page = (repo_root / "docs" / "outputs.md").read_text()
    shown = set(re.findall(r"\(images/([^)]+)\)", page))
    made = {path.name: path for path in tmp_path.iterdir()}
    assert shown == set(made)
    for name, path in made.items():
        assert (repo_root / "docs" / "images" / name).is_file()
        assert path.stat().st_size < 200_000
        assert cv2.imread(str(path)).shape == (300, 400, 3)
