"""The command: what it prints, in which order, and how it ends."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from importlib import resources

import pytest
from artifacts import write_artifact, write_rig
from jsonschema import Draft202012Validator

from mmfusion_ros import doctor
from mmfusion_ros.checks import table
from mmfusion_ros.checks.finding import Finding, Level
from mmfusion_ros.checks.report import as_json, as_text
from mmfusion_ros.checks.subject import Setup, megabytes
from mmfusion_ros.checks.table import CHECKS, Check, run

SCHEMA = json.loads(
    resources.files("mmfusion_ros.checks").joinpath("report.schema.json").read_text()
)


def finding(level, check="some.check"):
    return Finding(check, Level(level), f"found {level}", "", "do this", {"figure": 1})


@pytest.fixture
def checks(monkeypatch):
    """Make the command run these checks instead: functions by name."""

    def replace(**functions):
        monkeypatch.setattr(Check, "load", lambda check: functions[check.name])
        made = tuple(Check(name, name, "nowhere:nothing") for name in functions)
        monkeypatch.setattr(doctor, "CHECKS", made)

    return replace


@pytest.mark.ros
def test_a_quick_run_of_everything_fits_the_schema(tmp_path, capsys, repo_root):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    artifact, rig = write_artifact(tmp_path / "small"), write_rig(tmp_path / "rig.yaml")
    status = doctor.main(["--quick", "--json", "--artifact", str(artifact), "--rig", str(rig)])
    report = json.loads(capsys.readouterr().out)
    Draft202012Validator(SCHEMA).validate(report)
    assert status == int(report["failed"])
    found = {entry["check"]: entry["level"] for entry in report["findings"]}
    assert found["artifact"] == found["rig"] == found["ros.installation"] == "ok"
    assert sum(report["counts"].values()) == len(report["findings"])
    documented = (repo_root / "docs" / "doctor.md").read_text()
    assert not [name for name in found if f"| `{name}` |" not in documented]
    # Each part of it has said something.
    names = {check.name for check in CHECKS}
    assert not [n for n in names if not any(c == n or c.startswith(f"{n}.") for c in found)]


def test_a_wrong_artifact_and_rig_are_errors_of_the_real_command(tmp_path):
    files = ["--artifact", str(tmp_path / "none"), "--rig", str(tmp_path / "none.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "mmfusion_ros.doctor", "--quick", *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    last = done.stdout.strip().splitlines()
    assert last[-1].startswith("2 error") or last[-1].startswith("3 error")
    assert "\x1b[" not in done.stdout


@pytest.mark.parametrize(
    ("level", "strict", "status"),
    [
        ("ok", False, 0),
        ("skipped", True, 0),
        ("note", True, 0),
        ("warning", False, 0),
        ("warning", True, 1),
        ("error", False, 1),
        ("error", True, 1),
    ],
)
@pytest.mark.parametrize("output", [[], ["--json"]])
def test_exit_status(checks, capsys, level, strict, status, output):
    checks(some=lambda _: [finding(level)])
    assert doctor.main([*output, *(["--strict"] if strict else [])]) == status
    printed = capsys.readouterr().out
    if output:
        assert json.loads(printed)["failed"] == bool(status)
    assert f"found {level}" in printed


def test_a_check_that_raises_is_an_error_and_stops_no_other(checks, capsys):
    def broken(_):
        yield finding("ok", "broken.first")
        raise KeyError("whatever")

    checks(broken=broken, fine=lambda _: [finding("ok", "fine")])
    assert doctor.main(["--json"]) == 1
    found = {entry["check"]: entry for entry in json.loads(capsys.readouterr().out)["findings"]}
    assert found["broken.first"]["level"] == found["fine"]["level"] == "ok"
    assert found["broken"]["level"] == "error"
    assert "KeyError" in found["broken"]["found"]


def test_a_library_that_is_missing_costs_only_what_needs_it(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] in {"tqdm", "packaging"}:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "mmfusion_ros.checks.libraries", raising=False)
    wanted = {"libraries", "clock.sync"}
    found = run([check for check in CHECKS if check.name in wanted], Setup())
    by_name = {entry.check: entry for entry in found}
    assert by_name["libraries"].level == "error"
    assert "packaging" in by_name["libraries"].found
    assert by_name["clock.sync"].level != "error"


def test_an_interruption_ends_quietly(checks, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    checks(some=interrupted)
    assert doctor.main([]) == 130
    assert capsys.readouterr().out == ""


def test_every_check_exists():
    for check in CHECKS:
        assert callable(check.load())


@pytest.mark.parametrize("where", ["module", "command"])
def test_help_imports_nothing_heavy(where):
    code = {
        "module": "import mmfusion_ros.doctor",
        "command": "from mmfusion_ros import doctor\ntry: doctor.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0",
    }[where]
    heavy = ("rclpy", "cv2", "onnxruntime", "jsonschema", "tqdm", "yaml")
    check = f"{code}\nimport sys\nassert not [m for m in {heavy} if m in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "640"],
        ["--size", "0x480"],
        ["--rate", "0"],
        ["--rate", "inf"],
        ["--rate", "nan"],
        ["--seconds", "-1"],
        ["--seconds", "x"],
        ["surplus"],
    ],
)
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        doctor.main(arguments)
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "invalid" not in told  # where argparse has to find words itself


def test_the_worst_comes_last_and_a_summary_ends_it():
    text = as_text([finding(level, f"a.{level}") for level in ("error", "ok", "warning", "note")])
    lines = [line for line in text.splitlines() if line.startswith(("error", "ok", "warn", "note"))]
    assert [line.split()[0] for line in lines] == ["ok", "note", "warning", "error"]
    assert text.splitlines()[-1] == "1 error, 1 warning, 1 note, 1 ok, 0 skipped"
    columns = {line.index("found") for line in lines}
    assert len(columns) == 1


def test_on_a_terminal_it_is_coloured_and_narrow(monkeypatch):
    long = Finding("a.b", Level.NOTE, "word " * 60, "e", "d")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "90")
    text = as_text([long])
    assert "\x1b[36m" in text
    assert max(len(line) for line in text.splitlines()) <= 90 + len("\x1b[36m\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in as_text([long])


def test_json_of_every_level_fits_the_schema():
    report = json.loads(as_json([finding(level) for level in Level], failed=True))
    Draft202012Validator(SCHEMA).validate(report)
    assert report["counts"] == dict.fromkeys(map(str, Level), 1)


def test_the_schema_knows_a_stranger():
    report = json.loads(as_json([finding("ok")], failed=False))
    report["findings"][0]["surplus"] = 1
    assert not Draft202012Validator(SCHEMA).is_valid(report)


def test_sizes_come_from_the_option_the_artifact_or_the_rig(tmp_path):
    artifact = write_artifact(tmp_path / "small", depth=(24, 32))
    rig = write_rig(tmp_path / "rig.yaml", (60, 80))

    def sizes(**options):
        return [(camera.height, camera.width) for camera in Setup(**options).cameras]

    assert sizes() == [(480, 640)] * 3
    assert sizes(rig=rig) == [(60, 80)] * 3
    assert sizes(rig=rig, artifact=artifact) == [(48, 64), (24, 32), (48, 64)]
    assert sizes(artifact=artifact, size=(10, 20)) == [(10, 20)] * 3
    assert sizes(artifact=tmp_path) == [(480, 640)] * 3
    assert Setup().set_bytes == 640 * 480 * 7
    assert Setup().largest_bytes == 640 * 480 * 3


@pytest.mark.parametrize(
    ("count", "text"),
    [(512 << 10, "512 KiB"), (16 << 20, "16 MiB"), (3 << 29, "1.5 GiB"), (900 << 20, "900 MiB")],
)
def test_bytes_in_plain_words(count, text):
    assert megabytes(count) == text


def test_the_table_has_no_check_twice():
    assert len({check.name for check in table.CHECKS}) == len(table.CHECKS)
