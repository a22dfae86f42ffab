"""What the tests of the synchroniser share. Times in milliseconds unless named _ns."""

import importlib.util
from pathlib import Path

from mmfusion_ros.core.frames import Frame, Modality, SourceImage
from mmfusion_ros.core.synchronizer import SensorTiming, Synchronizer, SynchronizerConfig

RGB, DEPTH, THERMAL = Modality
MS = 1_000_000
SECOND = 1_000
HOUR = 3_600_000
IMAGE = SourceImage(b"", 0, 0, "mono8", 0)


def frame(modality, stamp, fingerprint=None):
    return Frame(modality, round(stamp * MS), f"{modality}_optical", IMAGE, fingerprint)


def timing(offset=0, window=15):
    return SensorTiming(offset_ns=round(offset * MS), window_ns=round(window * MS))


class Bench:
    """A synchroniser, the sets it gave, and a clock that follows the stamps unless told."""

    def __init__(self, **config):
        self.sets = []
        self.synchronizer = Synchronizer(SynchronizerConfig(**config), self.on_set)
        self.now = 0

    def on_set(self, frames):
        self.sets.append(frames)

    def add(self, modality, stamp, now=None, fingerprint=None):
        self.now = stamp if now is None else now
        self.synchronizer.add(frame(modality, stamp, fingerprint), round(self.now * MS))

    def all(self, stamp, now=None):
        for modality in Modality:
            self.add(modality, stamp, now)

    def rhythm(self, *modalities, start=0, count=10, period=33):
        """Aligned frames; returns the stamp after the last."""
        for index in range(count):
            for modality in modalities:
                self.add(modality, start + index * period)
        return start + count * period

    def advance(self, now):
        self.synchronizer.advance(round(now * MS))

    @property
    def stamps(self):
        return [s.stamp_ns / MS for s in self.sets]

    def dropped(self, modality):
        counts = self.synchronizer.statistics().dropped[modality]
        return {str(reason): count for reason, count in counts.items() if count}


def content(frames):
    """(rgb, depth, thermal): stamps in ms, or the reason for absence."""

    def side(companion):
        return companion.frame.stamp_ns / MS if companion.frame else companion.absence

    return frames.stamp_ns / MS, side(frames.depth), side(frames.thermal)


def contents(bench):
    return [content(frames) for frames in bench.sets]


def stock_synchronizer():
    path = Path(__file__).parents[3] / "benchmarks" / "_stock_synchronizer.py"
    spec = importlib.util.spec_from_file_location("_stock_synchronizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.StockSynchronizer


class Stock:
    """The usual algorithm behind the same ``add``, for tests that show where the two part."""

    def __init__(self, slop, queue_size=10):
        self.sets = []
        self.core = stock_synchronizer()(3, slop * MS, queue_size, self.sets.append)

    def add(self, modality, stamp, now=None):
        item = frame(modality, stamp)
        self.core.add(list(Modality).index(modality), item.stamp_ns, item)

    @property
    def spreads(self):
        return [(max(s) - min(s)) / MS for s in ([f.stamp_ns for f in x] for x in self.sets)]

    @property
    def stamps(self):
        return [s[0].stamp_ns / MS for s in self.sets]
