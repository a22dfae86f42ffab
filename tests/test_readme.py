"""What the README says of topics and parameters is what the code says."""

from __future__ import annotations

import re

import pytest

from mmfusion_ros import parameters, topics


@pytest.mark.parametrize("source", [parameters, topics])
def test_tables_are_those_of_the_code(repo_root, source):
    name = source.__name__.rpartition(".")[2]
    readme = (repo_root / "README.md").read_text()
    (shown,) = re.findall(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", readme, re.DOTALL)
    assert shown.strip() == source.markdown().strip(), (
        f"put the output of 'python -m {source.__name__}' between the {name} marks of README.md"
    )


def test_files_it_links_to_exist(repo_root):
    readme = (repo_root / "README.md").read_text()
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", readme)
    assert links
    assert [link for link in links if not (repo_root / link).exists()] == []
