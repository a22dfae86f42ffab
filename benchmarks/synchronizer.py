"""What synchronising costs per message, ours against the usual approximate-time algorithm.

Both run on the same made-up streams in the same process, in turns, so the ratio holds on a
busy machine too. It flatters the stock one, whose original handles stamps as objects (12-15 us
per message were measured for it, on another day) and which has no deadlines to keep.

Run: ``python benchmarks/synchronizer.py [--seconds 20] [--repeats 7]``.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from time import perf_counter_ns
from typing import NamedTuple

from _stock_synchronizer import StockSynchronizer

from mmfusion_ros.core.frames import Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.synchronizer import Synchronizer, SynchronizerConfig

RESULT = Path(__file__).resolve().parent / "results" / "synchronizer.json"
MS = 1_000_000
PERIOD = 33_333_333
TOPICS = list(Modality)
STOCK_SLOP = 10 * MS
STOCK_QUEUE = 30


class Event(NamedTuple):
    """A frame and when it arrives."""

    arrival_ns: int
    frame: Frame


class Run(NamedTuple):
    """One pass over the events."""

    cpu_us: float  # per message
    worst_us: float
    sets: int
    complete: int
    wait_ms: float  # mean, from the arrival of the RGB frame to its set, in the time of the events


def camera_streams(seconds: float, *, stalled: Modality | None = None) -> list[Event]:
    """Three 30 Hz cameras with 2 ms jitter of stamps, 1 to 6 ms on the way."""
    rng = random.Random(7)
    image = SourceImage(b"", 0, 0, "mono8", 0)
    events = []
    for index in range(int(seconds * 1e9 / PERIOD)):
        for modality in TOPICS:
            if modality is stalled and index * PERIOD > 2e9:
                continue
            stamp = 1_000 * MS + index * PERIOD + rng.randint(-2 * MS, 2 * MS)
            frame = Frame(modality, stamp, "camera", image)
            events.append(Event(stamp + rng.randint(MS, 6 * MS), frame))
    return sorted(events, key=lambda event: event.arrival_ns)


def run_ours(events: list[Event]) -> Run:
    """Feed as the node does: a message, then the timer if it is due before the next one."""
    arrivals = {e.frame.stamp_ns: e.arrival_ns for e in events if e.frame.modality is Modality.RGB}
    now = 0
    waits: list[int] = []
    complete = 0

    def on_set(frames: FrameSet) -> None:
        nonlocal complete
        waits.append(now - arrivals[frames.stamp_ns])
        complete += frames.depth.frame is not None and frames.thermal.frame is not None

    synchronizer = Synchronizer(SynchronizerConfig(), on_set)
    spent = worst = 0
    for event in events:
        started = perf_counter_ns()
        deadline = synchronizer.next_deadline_ns()
        if deadline is not None and deadline < event.arrival_ns:
            now = deadline
            synchronizer.advance(now)
        now = event.arrival_ns
        synchronizer.add(event.frame, now)
        took = perf_counter_ns() - started
        spent += took
        worst = max(worst, took)
    mean_wait = sum(waits) / max(len(waits), 1) / MS
    return Run(spent / len(events) / 1e3, worst / 1e3, len(waits), complete, mean_wait)


def run_stock(events: list[Event]) -> Run:
    """Feed the restated stock algorithm."""
    sets = 0

    def on_set(_: object) -> None:
        nonlocal sets
        sets += 1

    synchronizer = StockSynchronizer[Frame](len(TOPICS), STOCK_SLOP, STOCK_QUEUE, on_set)
    topic_of = {modality: index for index, modality in enumerate(TOPICS)}
    spent = worst = 0
    for _, frame in events:
        started = perf_counter_ns()
        synchronizer.add(topic_of[frame.modality], frame.stamp_ns, frame)
        took = perf_counter_ns() - started
        spent += took
        worst = max(worst, took)
    return Run(spent / len(events) / 1e3, worst / 1e3, sets, sets, float("nan"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="length of the streams")
    parser.add_argument("--repeats", type=int, default=7, help="passes; the fastest counts")
    arguments = parser.parse_args()
    cases = {
        "3 x 30 Hz, 2 ms jitter": camera_streams(arguments.seconds),
        "thermal stalls after 2 s": camera_streams(arguments.seconds, stalled=Modality.THERMAL),
    }
    print(f"stock: slop {STOCK_SLOP // MS} ms, queue {STOCK_QUEUE}; ours: defaults")
    print("us per message: fastest pass; ratio: ours / stock, of the fastest passes")
    columns = ("case", "who", "us/message", "worst us", "sets", "complete", "wait ms", "ratio")
    print("{:26}{:7}{:>11}{:>10}{:>7}{:>10}{:>9}{:>7}".format(*columns))
    record = {}
    for name, events in cases.items():
        ours, stock = [], []
        for _ in range(arguments.repeats):
            ours.append(run_ours(events))
            stock.append(run_stock(events))
        best = {"ours": min(ours), "stock": min(stock)}
        rgb = sum(event.frame.modality is Modality.RGB for event in events)
        ratio = best["ours"].cpu_us / best["stock"].cpu_us
        record[name] = {who: run._asdict() for who, run in best.items()}
        record[name]["stock"]["wait_ms"] = None  # it has no say in when a set leaves
        record[name] |= {"ratio": ratio, "rgb_frames": rgb}
        for who, run in best.items():
            print(
                f"{name:26}{who:7}{run.cpu_us:11.2f}{run.worst_us:10.0f}{run.sets:7}"
                f"{run.complete:10}{run.wait_ms:9.2f}" + (f"{ratio:7.2f}" if who == "ours" else "")
            )
        print(f"{'':26}({rgb} RGB frames)")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
