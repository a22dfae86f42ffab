"""Several bags in one run: each as by itself, a summary over all, and none stops the others."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from artifacts import add_reduced_graph, write_artifact
from bags import cameras, pictures, write_bag
from replays import STABLE, differing, metrics_of, read_json, run, run_all

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")

from mmfusion_ros import fleet
from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions
from mmfusion_ros.core.engines.sample_frames import SampleFrames, write_sample_frames
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.replay_job import Job, ReplayOptions
from mmfusion_ros.replay_plan import distinct_names, plan_replay
from mmfusion_ros.summary import summary_document, write_summary

SIZE = (48, 64)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifacts") / "tiny", saliency=True)


@pytest.fixture(scope="module")
def bags(tmp_path_factory) -> list[Path]:
    """Two of the same name, one that is none, and one with damage."""
    folder = tmp_path_factory.mktemp("bags")
    first = write_bag(folder / "yard", cameras(5))
    second = write_bag(folder / "again" / "yard", cameras(7, no_thermal={2, 3}))
    broken = folder / "broken"
    broken.mkdir()
    (broken / "broken.mcap").write_bytes(b"")
    cut = write_bag(folder / "cut", cameras(6)) / "cut.mcap"
    cut.write_bytes(cut.read_bytes()[:-100])
    return [first, second, broken, cut]


@pytest.fixture(scope="module")
def alone(artifact, bags, tmp_path_factory) -> Path:
    """Each bag that can be read, replayed by itself."""
    out = tmp_path_factory.mktemp("alone")
    for name, bag in zip(("yard", "yard_2", "", "cut"), bags, strict=True):
        if name:
            assert run(bag, artifact, out / name) == 0
    return out


@pytest.fixture(scope="module")
def together(artifact, bags, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("together") / "out"
    assert run_all(bags, artifact, out) == 1  # as one of them failed
    return out


def test_each_is_as_by_itself(together, alone):
    for name in ("yard", "yard_2", "cut"):
        assert differing(together / name, alone / name) == []
        assert (together / name / "report.html").is_file()
    assert not (together / "broken").exists()
    assert sorted(path.name for path in together.iterdir()) == [
        *("cut", "summary.html", "summary.json", "yard", "yard_2"),
    ]


def test_the_summary(together):
    summary = read_json(together / "summary.json")
    states = {bag["name"]: bag["state"] for bag in summary["bags"]}
    assert list(states.items()) == [
        *(("yard", "complete"), ("yard_2", "complete")),
        *(("broken", "failed"), ("cut", "incomplete")),
    ]
    assert summary["worst"][:2] == ["broken", "cut"]
    assert summary["sets"] == 18
    assert summary["states"] == {"failed": 1, "incomplete": 1, "complete": 2}
    first, second, broken, cut = summary["bags"]
    assert broken["error"].endswith("cannot be read: broken.mcap is empty")
    assert "ends early" in cut["problems"][0]
    assert (first["all_cameras"], second["all_cameras"]) == (1.0, pytest.approx(5 / 7))
    metrics = metrics_of(together / "yard")
    both = metrics["modalities"]["rgb+depth+thermal"]
    for method in ("fused", "average"):
        assert first["figures"]["VIF"][method] == both[method]["VIF"]["mean"]


def test_the_page_shows_the_worst_first(together):
    page = (together / "summary.html").read_text()
    names = re.findall(r"<tr>\n<td>(?:<a href=\"([^\"]+)\">)?([^<]+)", page)
    assert [name for _, name in names][:2] == ["broken", "cut"]
    for link, _ in names[1:]:
        assert (together / link).is_file()
    assert "broken.mcap is empty" in page
    assert "http" not in page.replace("http-equiv", "")


def test_failures_name_paths_below_out_and_bags_are_counted_once(tmp_path):
    out = Path("out")
    artifacts = [tmp_path / "a", tmp_path / "b"]
    plan = plan_replay([tmp_path / "yard", tmp_path / "hall"], artifacts, out, ReplayOptions())
    results = [
        fleet.Result(job, error=f"without --out: {job.out}/result is full") for job in plan.jobs
    ]
    document = summary_document(out, results)
    assert document["bags"][0]["error"] == "without --out: ./yard/a/result is full"
    write_summary(tmp_path, [replaced(result, tmp_path) for result in results], (), "replay")
    page = (tmp_path / "summary.html").read_text()
    assert "Replay of 2 bags" in page
    assert re.search(r"4\b[^0-9]*replays failed", page)


def replaced(result: fleet.Result, out: Path) -> fleet.Result:
    """A result that lies in another folder."""
    below = result.job.out.relative_to("out")
    return dataclasses.replace(result, job=dataclasses.replace(result.job, out=out / below))


def test_the_terminal_shows_a_table(artifact, bags, tmp_path, capsys):
    assert run_all(bags[:3], artifact, tmp_path / "out", "--no-report") == 1
    told = capsys.readouterr()
    table = told.out[told.out.index("bag ") :].splitlines()
    assert table[0].split()[:3] == ["bag", "state", "sets"]
    assert table[1].split()[:3] == ["broken", "failed", "0"]
    assert "replay: broken: " in told.err
    assert "Traceback" not in told.err


def test_processes_give_the_same(artifact, bags, together, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_all(bags, artifact, out, "--jobs", "3") == 1
    for name in ("yard", "yard_2", "cut"):
        assert differing(out / name, together / name) == []
    assert (out / "summary.json").read_bytes() == (together / "summary.json").read_bytes()
    assert "broken.mcap is empty" in capsys.readouterr().err


def test_a_process_that_is_killed_costs_its_bag_alone(artifact, bags, tmp_path, monkeypatch):
    """As when memory runs out."""
    monkeypatch.setenv("MMFUSION_TEST_KILLED", "yard_2")
    monkeypatch.setattr(fleet, "perform", killed)
    plan = plan_replay(
        bags[:3],
        [artifact],
        tmp_path / "out",
        ReplayOptions(engine=EngineOptions("onnxruntime", threads=1)),
    )
    ended: list[fleet.Result] = []
    results = fleet.run_in_processes(plan.jobs, 2, ended.append)
    assert [result.job.name for result in results] == ["yard", "yard_2", "broken"]
    assert [result.done is None for result in results] == [False, True, True]
    assert "was killed" in results[1].error
    assert "is empty" in results[2].error
    assert sorted(r.job.name for r in ended) == ["broken", "yard", "yard_2"]
    assert metrics_of(tmp_path / "out" / "yard")["sets"] == 5


def killed(job: Job, place: int, channel: fleet.Channel) -> fleet.Result:
    """`fleet.perform` where one bag kills its process."""
    from mmfusion_ros import fleet as real

    if job.name == os.environ["MMFUSION_TEST_KILLED"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real.perform(job, place, channel)


class Heard:
    """A channel that keeps what a job tells, and stops it where asked."""

    def __init__(self, stop_at: str = "") -> None:
        self.messages: list[tuple[int, str, int]] = []
        self.stop_at = stop_at

    def put(self, message):
        self.messages.append(message)

    def stopped(self):
        return self.stop_at in [what for _, what, _ in self.messages]


@pytest.fixture
def reduced_job(bags, tmp_path):
    """A job whose engine is compared with fp32 when it is opened."""
    tolerances = {"fused": {"psnr_db": 45}}
    folder = add_reduced_graph(write_artifact(tmp_path / "small"), tolerances=tolerances)
    inputs = open_artifact(folder).inputs
    frame = {name: np.zeros(spec.shape, spec.dtype) for name, spec in inputs.items()}
    samples = tmp_path / "f.npz"
    write_sample_frames(samples, open_artifact(folder), SampleFrames.of([frame]))
    engine = EngineOptions(
        "onnxruntime", precision="int8", threads=1, cache=tmp_path, samples=samples
    )
    return Job("yard", bags[0], folder, tmp_path / "out", ReplayOptions(engine=engine))


def test_how_far_the_opening_of_an_engine_is_comes_before_the_sets(reduced_job):
    channel = Heard()
    result = fleet.perform(reduced_job, 7, channel)
    assert result.error == ""
    told = [what for _, what, _ in channel.messages]
    assert told[:3] == ["begun", "comparing int8 with fp32", "expected"]
    monitor = fleet.Monitor(1)
    for message in channel.messages[:2]:
        monitor.note(message)
    assert monitor.bar.desc == "comparing int8 with fp32 0%"
    monitor.note(channel.messages[2])
    assert monitor.bar.desc == ""
    monitor.bar.close()


def test_the_opening_of_an_engine_can_be_interrupted(reduced_job):
    channel = Heard(stop_at="comparing int8 with fp32")
    result = fleet.perform(reduced_job, 7, channel)
    assert result.interrupted
    assert "before anything was done" in result.error
    assert not reduced_job.out.exists()


def test_a_fault_of_the_program_costs_one_bag_alone(artifact, bags, tmp_path, monkeypatch, capsys):
    prepare = fleet.prepare

    def faulty(job: Job):
        if job.name == "yard":
            raise ZeroDivisionError("nobody thought of that")
        return prepare(job)

    monkeypatch.setattr(fleet, "prepare", faulty)
    assert run_all(bags[:2], artifact, tmp_path / "out", "--no-report") == 1
    assert "unexpected ZeroDivisionError: nobody thought of that" in capsys.readouterr().err
    assert metrics_of(tmp_path / "out" / "yard_2")["sets"] == 7


@pytest.fixture(scope="module")
def long_bags(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("long")
    return [write_bag(folder / f"bag{number}", cameras(600)) for number in range(3)]


@contextmanager
def replaying(bags: list[Path], artifact: Path, out: Path, jobs: str) -> Iterator[Any]:
    """A process that has begun with as many bags as it has jobs."""
    command = [sys.executable, "-m", "mmfusion_ros.replay", *map(str, bags)]
    command += ["--artifact", str(artifact), "--out", str(out), "--threads", "1"]
    command += ["--backend", "onnxruntime"]
    command += ["--metrics-stride", "1", "--jobs", jobs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            last = out / f"bag{int(jobs) - 1}" / "result" / "result.mcap"
            wait_for(last.exists, "the last job")
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    """Processes that a process, or one of these, has begun."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name, which may hold anything, is in brackets.
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:  # gone meanwhile
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    """Those that are there, but for those that only wait to be noticed as gone."""
    running = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            running.add(pid)
    return running


@pytest.mark.parametrize(
    ("jobs", "signal_"), [("1", signal.SIGINT), ("2", signal.SIGINT), ("2", signal.SIGTERM)]
)
def test_a_signal_ends_all_and_keeps_what_is_complete(artifact, long_bags, tmp_path, jobs, signal_):
    out = tmp_path / "out"
    with replaying(long_bags, artifact, out, jobs) as process:
        time.sleep(0.5)
        others = descendants(process.pid)
        process.send_signal(signal_)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130
    assert b"Traceback" not in told
    wait_for(lambda: not alive(others), "the processes to end")
    states = [bag["state"] for bag in read_json(out / "summary.json")["bags"]]
    assert states == ["interrupted", *["interrupted" if jobs == "2" else "not run"], "not run"]
    for number in range(int(jobs)):
        metrics = metrics_of(out / f"bag{number}")
        assert metrics["complete"] is False
        assert 0 < metrics["sets"] < 600
        for file in STABLE:
            assert (out / f"bag{number}" / file).is_file()


def test_no_process_is_left_when_the_first_is_killed(artifact, long_bags, tmp_path):
    with replaying(long_bags, artifact, tmp_path / "out", "2") as process:
        others = descendants(process.pid)
        assert len(others) >= 3  # two workers and the channel
        process.kill()
        process.communicate(timeout=60)
    wait_for(lambda: not alive(others), "the processes to end")


# Jobs that do not end, as one that writes a long report for a while.
ENDLESS = """
import sys, time
from pathlib import Path
from mmfusion_ros import fleet
from mmfusion_ros.replay_job import ReplayOptions
from mmfusion_ros.replay_plan import plan_replay

def endless(job, place, channel):
    job.out.mkdir(parents=True)
    time.sleep(600)

if __name__ == "__main__":
    *bags, artifact, out = map(Path, sys.argv[1:])
    fleet.perform = endless
    plan = plan_replay(bags, [artifact], out, ReplayOptions())
    try:
        fleet.run_in_processes(plan.jobs, 2, print)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_a_second_ctrl_c_waits_for_nothing(artifact, bags, tmp_path):
    script, out = tmp_path / "endless.py", tmp_path / "out"
    script.write_text(ENDLESS)
    paths = [*bags[:2], artifact, out]
    with subprocess.Popen(
        [sys.executable, script, *paths], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_for(lambda: (out / "yard").exists() and (out / "yard_2").exists(), "both jobs")
            others = descendants(process.pid)
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                process.send_signal(signal.SIGINT)
                time.sleep(1.0)
            assert process.returncode == 130, process.stderr.read()
        finally:
            process.kill()
    wait_for(lambda: not alive(others), "the processes to end")


class TestGroundTruth:
    @pytest.fixture(autouse=True)
    def measures(self):
        pytest.importorskip("py_sod_metrics", reason="mmfusion[eval] is not installed")

    @staticmethod
    def masks(folder: Path, count: int) -> None:
        folder.mkdir(parents=True)
        for number in range(count):
            thermal = pictures(number, SIZE)["thermal"]
            mask = np.where(thermal > np.median(thermal), 255, 0).astype(np.uint8)
            cv2.imwrite(str(folder / f"{number:03}.png"), mask)

    def test_of_each_bag_in_a_subfolder(self, artifact, bags, tmp_path, capsys):
        truth, out = tmp_path / "gt", tmp_path / "out"
        self.masks(truth / "yard", 5)
        options = ("--ground-truth-masks", truth, "--no-report")
        assert run_all(bags[:2], artifact, out, *options) == 0
        assert "no yard_2 in" in capsys.readouterr().out
        assert metrics_of(out / "yard")["saliency"]["overall"]["pictures"] == 5
        assert metrics_of(out / "yard_2")["saliency"] is None
        summary = read_json(out / "summary.json")
        assert 0.5 < summary["bags"][0]["figures"]["saliency"]["S"] <= 1
        assert summary["worst"][0] == "yard"  # of the other nothing is known

    def test_of_no_bag(self, artifact, bags, tmp_path, capsys):
        self.masks(tmp_path / "gt", 5)
        options = ("--ground-truth-masks", tmp_path / "gt")
        assert run_all(bags[:2], artifact, tmp_path / "out", *options) == 1
        told = capsys.readouterr().err
        assert "a subfolder of masks is expected there for each: yard, yard_2" in told
        options = ("--ground-truth-boxes", tmp_path / "gt")
        assert run_all(bags[:2], artifact, tmp_path / "out", *options) == 1
        assert "expected there for each: yard.json, yard_2.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a_2", "a_3"]),
        (["a", "a", "a_2"], ["a", "a_2", "a_2_2"]),
        (["Yard", "yard"], ["Yard", "yard_2"]),
        (["summary.json"], ["summary.json_2"]),
    ],
)
def test_names_are_distinct(names, expected):
    assert distinct_names(names) == expected


def test_names_are_those_of_folders_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drive").mkdir()
    (tmp_path / "a.mcap").touch()
    monkeypatch.chdir(tmp_path / "drive")
    bags = [Path(), Path("../a.mcap")]
    jobs = plan_replay(bags, [tmp_path], tmp_path / "out", ReplayOptions()).jobs
    assert [job.out for job in jobs] == [tmp_path / "out" / "drive", tmp_path / "out" / "a"]


def test_out_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MmfusionError, match="expected a folder"):
        plan_replay([tmp_path], [tmp_path], tmp_path / "file", ReplayOptions())
