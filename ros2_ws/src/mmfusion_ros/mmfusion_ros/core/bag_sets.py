"""All frame sets of a bag, without the haste of a live node."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from mmfusion_ros.core.bag_reader import Bag, ReadingReport, read_frames
from mmfusion_ros.core.frames import FrameSet
from mmfusion_ros.core.synchronizer import SensorTiming, Synchronizer, SynchronizerConfig

_PATIENCE_NS = 1_000_000_000  # nobody waits for a result


def frame_sets(
    bag: Bag, report: ReadingReport, depth: SensorTiming, thermal: SensorTiming
) -> Iterator[FrameSet]:
    """One set for each RGB frame, in order.

    Args:
        bag: to read.
        report: gets what is wrong with the bag.
        depth: how its frames are matched.
        thermal: the same.
    """
    config = SynchronizerConfig(depth, thermal, max_wait_ns=_PATIENCE_NS, eager=False)
    ready: deque[FrameSet] = deque()
    synchronizer = Synchronizer(config, ready.append)
    for frame, log_time in read_frames(bag, report):
        synchronizer.add(frame, log_time)
        while ready:
            yield ready.popleft()
    synchronizer.flush()
    yield from ready
