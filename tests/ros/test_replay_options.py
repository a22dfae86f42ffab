"""The command line of replay, and what docs/replay.md says of it."""

from __future__ import annotations

import dataclasses
import re

import pytest

from mmfusion_ros.core.frames import Modality
from mmfusion_ros.replay_job import ReplayOptions
from mmfusion_ros.replay_options import parser, replay_options

NEEDED = ["bag", "--artifact", "a", "--out", "o"]


def test_defaults_are_those_of_the_job():
    assert replay_options(parser().parse_args(NEEDED)) == ReplayOptions()


def test_every_option_reaches_the_job():
    words = (
        "--rig r --backend pass_through --threads 3 --device-id 1 --depth-topic /d "
        "--without thermal --start 1 --end 2 --stride 2 --max-frames 5 --metrics-stride 0 "
        "--metrics-threads 2 --channel value "
        "--window-ms 1 --max-wait-ms 2 --frozen-after-ms 3 --min-score 0.25 --class-map a=b "
        "--no-report"
    )
    options = replay_options(parser().parse_args([*NEEDED, *words.split()]))
    default = ReplayOptions()
    same = [f.name for f in dataclasses.fields(options)]
    same = [name for name in same if getattr(options, name) == getattr(default, name)]
    assert same == []
    assert options.engine.device_id == 1
    assert options.topics == {Modality.DEPTH: "/d"}
    assert options.class_map == {"a": "b"}


@pytest.mark.parametrize(
    "words",
    [
        *("--start noon", "--stride 0", "--jobs 0", "--threads -1", "--min-score 2"),
        *("--class-map x", "--window-ms x", "--cluster tcp://host:1 --jobs 2"),
    ],
)
def test_what_makes_no_sense(capsys, words):
    with pytest.raises(SystemExit) as caught:
        parser().parse_args([*NEEDED, *words.split()])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert re.search(rf"argument ({'|'.join(re.findall('--[a-z-]+', words))}): ", told)
    assert "invalid" not in told  # where argparse has to find words itself


def test_the_documentation_names_no_option_that_is_not_there(repo_root):
    text = (repo_root / "docs" / "replay.md").read_text()
    text = re.sub(r"^    dask .*$", "", text, flags=re.MULTILINE)
    known = set(parser().format_help().split()) | {"--help"}
    known |= {word.strip("[]") for word in known}
    assert {
        option for option in re.findall(r"--[a-z][a-z-]*", text) if option not in known
    } == set()


def test_the_messages_of_the_documentation_are_those_of_the_code(repo_root):
    """Each piece of a message that stands between dots is somewhere in the source."""
    text = (repo_root / "docs" / "replay.md").read_text()
    table = text[text.index("## When something is wrong") :]
    source = "".join(
        path.read_text()
        for path in (repo_root / "ros2_ws/src/mmfusion_ros/mmfusion_ros").rglob("*.py")
    )
    # Strings over several lines, and what is filled in, do not matter.
    source = re.sub(r'"\s*f?"', "", source)
    for row in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE):
        for message in re.findall(r"`([^`]+)`", row):
            for piece in re.split(r"\.\.\.|\d+x\d+|\d+|, but ", message):
                words = piece.strip(" :")
                assert words.replace("like depth", "like {named}") in source, message
