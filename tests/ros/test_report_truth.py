"""The tables of ground truth show each figure once, and nothing where there is none."""

from __future__ import annotations

from mmfusion_ros.report_truth import detection_tables, saliency_table, shown


def test_no_truth_no_tables():
    nothing = {"overall": {"pictures": 0}, "modalities": {}}
    for section in (None, nothing):
        assert saliency_table(section) is None
        assert detection_tables(section) is None


def test_saliency():
    overall = {"pictures": 3, "S": 0.75, "MAE": 0.0625}
    section = {"overall": overall, "modalities": {"rgb": {"pictures": 1, "S": 0.5, "MAE": 0.125}}}
    table = saliency_table(section)
    assert table["metrics"] == ["S", "MAE"]
    assert [(row["name"], row["pictures"], row["cells"]) for row in table["rows"]] == [
        ("all", 3, ["0.750", "0.062"]),
        ("rgb", 1, ["0.500", "0.125"]),
    ]


def test_detection():
    car = {"AP50_95": None, "AP50": None, "AP75": None, "truths": 0}
    person = {"AP50_95": 0.25, "AP50": 0.5, "AP75": 0.125, "truths": 7}
    part = {
        "pictures": 4,
        "mAP50_95": 0.25,
        "mAP50": 0.5,
        "mAP75": 0.125,
        "truths": 7,
        "classes": {"person": person, "car": car},
    }
    section = {"ignored_categories": ["dog", "tree"], "overall": part, "modalities": {"rgb": part}}
    tables = detection_tables(section)
    assert tables["ignored"] == "dog, tree"
    assert [(table["name"], table["pictures"]) for table in tables["tables"]] == [
        ("all", 4),
        ("rgb", 4),
    ]
    assert [(row["name"], row["truths"], row["cells"]) for row in tables["tables"][0]["rows"]] == [
        ("mean", 7, ["0.250", "0.500", "0.125"]),
        ("person", 7, ["0.250", "0.500", "0.125"]),
        ("car", 0, [shown(None)] * 3),
    ]


def test_figures_for_people():
    assert [shown(value) for value in (0.5, 12.34, float("nan"))] == ["0.500", "12.3", shown(None)]
