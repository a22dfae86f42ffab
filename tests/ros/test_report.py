"""The report stands alone, names what it shows and never lets a bag speak HTML."""

from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from artifacts import write_artifact
from bags import TOPICS, cameras, write_bag

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")

from mmfusion_ros import replay
from mmfusion_ros.evaluation import Measured
from mmfusion_ros.report import choose


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    artifact = write_artifact(folder / "tiny")
    messages = cameras(12, no_thermal={4})
    hostile = "<script>alert(1)</script>"
    messages = [
        (topic, kind, log, dataclasses.replace(message, encoding=hostile))
        if topic == TOPICS["depth"] and number > 30
        else (topic, kind, log, message)
        for number, (topic, kind, log, message) in enumerate(messages)
    ]
    bag = write_bag(folder / "drive", messages)
    words = [str(bag), "--artifact", str(artifact), "--out", str(folder / "out"), "--threads", "1"]
    words += ["--backend", "onnxruntime"]
    assert replay.main(words) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def page(out) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


class Balance(HTMLParser):
    """Collects the tags left open, and the sources of pictures."""

    void = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.void:
            self.open.append(tag)
        if tag == "img":
            self.sources.append(dict(attributes)["src"])

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_well_formed_and_needs_nothing_beside_it(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert parser.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in parser.sources)
    # Nothing is fetched; the names of XML vocabularies are no links.
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_the_pictures_can_be_seen(page):
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    for source in sources:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(source), np.uint8), 1)
        assert picture.shape == (48, 3 * 64, 3)
        assert picture.std() > 5


@pytest.mark.parametrize(
    "expected",
    [
        "tiny on drive",
        "frame sets fused",
        "python -m mmfusion_ros.replay",
        "Best: set",
        "Median: set",
        "Worst: set",
        "rgb+depth+thermal",
        "fused (this artifact)",
        "Q_ABF",
        "/thermal/image_raw",
        "training data",
        "Limits",
        "prefers-color-scheme: dark",
    ],
)
def test_it_says(page, expected):
    assert expected in page


def test_a_bag_cannot_inject_markup(page):
    assert "&lt;script&gt;" in page
    assert "<script" not in page


def test_the_plots_take_the_colour_of_the_text(page):
    assert page.count("<svg") == 2
    assert "currentColor" in page
    assert "#010203" not in page


def test_pictures_lie_beside_it_as_png(out):
    names = sorted(path.name for path in (out / "pictures").iterdir())
    assert names == ["best.png", "latency_plot.png", "median.png", "quality_plot.png", "worst.png"]
    for name in names:
        assert cv2.imread(str(out / "pictures" / name)).std() > 5


def measured(number: int, score: float | None) -> Measured:
    values = {"fused": {} if score is None else {"Q_ABF": score}}
    return Measured(number, number, "rgb", values, b"")


class TestChoice:
    def test_nothing_measured(self):
        assert choose([]) == []

    def test_one(self):
        assert [item.title for item in choose([measured(3, 0.5)])] == ["Best"]

    def test_without_scores_some_along_the_way(self):
        chosen = choose([measured(number, None) for number in range(10)])
        assert [item.entry.number for item in chosen] == [0, 3, 6, 9]

    def test_undefined_scores_do_not_rank(self):
        scores = [0.2, float("nan"), 0.9, 0.4]
        chosen = choose([measured(n, score) for n, score in enumerate(scores)])
        assert {item.title: item.entry.number for item in chosen[:3]} == {
            "Best": 2,
            "Median": 3,
            "Worst": 0,
        }
        assert sorted(item.entry.number for item in chosen) == [0, 1, 2, 3]
