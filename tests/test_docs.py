"""The pages of the documentation hang together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).resolve().parent.parent / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_exists(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_pages_name_checks_of_the_doctor_that_exist(repo_root):
    table = (repo_root / "docs" / "doctor.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", table, re.MULTILINE))
    groups = "|".join({name.partition(".")[0] for name in documented if "." in name})
    for page in PAGES:
        named = set(re.findall(rf"`((?:{groups})\.[a-z_]+)`", page.read_text()))
        assert named <= documented, page.name
