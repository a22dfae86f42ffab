"""Puts the frames of the three cameras that show one instant into one set.

Each RGB frame gives one set. Its depth and thermal frames are the nearest ones to its stamp;
which they are does not depend on the order in which messages happen to arrive, as long as they
arrive in time. A camera that does not deliver never holds the others up for long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from mmfusion_ros.core.frames import Absence, Frame, FrameSet, Modality
from mmfusion_ros.core.sensor_stream import DropReason, SensorStream
from mmfusion_ros.core.synchronizer_config import SensorTiming, SynchronizerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "DropReason",
    "SensorTiming",
    "Synchronizer",
    "SynchronizerConfig",
    "SynchronizerStatistics",
]


@dataclass(frozen=True)
class SynchronizerStatistics:
    """Counts since the synchroniser was made; a reset does not clear them.

    Every mapping has an entry for each key it can have. For RGB, ``received`` always equals
    ``emitted`` plus all ``dropped`` plus ``queued``.

    Attributes:
        received: frames given to ``add``.
        emitted: sets given to the callback.
        dropped: frames not used, by reason. An RGB frame counts under OVERFLOW if its set was
            ready but the callback too slow.
        absences: sets without depth or thermal, by reason.
        time_jumps: how often time was set back.
        queued: frames held now; for RGB those of sets not yet given to the callback.
    """

    received: Mapping[Modality, int]
    emitted: int
    dropped: Mapping[Modality, Mapping[DropReason, int]]
    absences: Mapping[Modality, Mapping[Absence, int]]
    time_jumps: int
    queued: Mapping[Modality, int]


class _Waiting(NamedTuple):
    """An RGB frame whose set is not decided yet."""

    rgb: Frame
    deadline_ns: int


class Synchronizer:
    """Collects frames and hands out sets, one for each RGB frame, with increasing stamps.

    A set is handed out as soon as no better depth and thermal frames can come, and at the
    latest ``max_wait_ns`` after its RGB frame arrived. Once a camera has sent a frame with a
    later stamp, no nearer one is expected, unless it has lately sent frames out of order.

    Two clocks are at work and never compared with each other: stamps say what belongs
    together, ``now_ns`` says how long to wait.

    Which sets come out depends only on the frames and their arrival times, not on when
    ``advance`` is called in between.

    All methods may be called from any thread and from the callback. The callback runs without
    a lock held, one call at a time and in stamp order, on whichever thread brought the set
    about or is already inside the callback; the other threads do not wait for it. What it raises
    comes out of the ``add``, ``advance`` or ``flush`` that called it; sets still to be given
    out then come with the next such call.

    When a stamp shows that time was set back, the sets that wait are handed out with what they
    have, and everything begins anew: only here do stamps of successive sets decrease.
    """

    def __init__(self, config: SynchronizerConfig, callback: Callable[[FrameSet], None]) -> None:
        self._callback = callback
        self._lock = Lock()
        self._configure(config)
        self._ready: deque[FrameSet] = deque()
        self._in_callback = False

        self._received = dict.fromkeys(Modality, 0)
        self._emitted = 0
        self._dropped = {modality: dict.fromkeys(DropReason, 0) for modality in Modality}
        self._absences = {modality: dict.fromkeys(Absence, 0) for modality in self._streams}
        self._time_jumps = 0

        self._forget_time()

    def add(self, frame: Frame, now_ns: int) -> None:
        """Take in a frame.

        Args:
            frame: of any camera, in any order.
            now_ns: when it arrived, on a clock that does not run backwards (in replay, the
                bag's log time).
        """
        with self._lock:
            # First what was due before this frame came, so that a late timer changes nothing.
            self._move_on(now_ns)
            self._received[frame.modality] += 1
            reason = self._take_in(frame, now_ns)
            if reason is not None:
                self._dropped[frame.modality][reason] += 1
            self._decide()
        self._hand_out()

    def advance(self, now_ns: int) -> None:
        """Hand out the sets whose wait is over."""
        with self._lock:
            self._move_on(now_ns)
        self._hand_out()

    def next_deadline_ns(self) -> int | None:
        """When ``advance`` has something to do; None as long as no RGB frame waits."""
        with self._lock:
            if self._ready and not self._in_callback:
                return self._now_ns  # left behind by an exception in the callback
            return self._waiting[0].deadline_ns if self._waiting else None

    def flush(self) -> None:
        """Hand out all that waits, with what there is (end of a bag)."""
        with self._lock:
            self._decide_all()
        self._hand_out()

    def reset(self) -> None:
        """Drop all frames and start anew; nothing from before is handed out afterwards."""
        with self._lock:
            lost = len(self._waiting) + len(self._ready)
            self._dropped[Modality.RGB][DropReason.RESET] += lost
            for modality, stream in self._streams.items():
                self._dropped[modality][DropReason.RESET] += len(stream)
            self._ready.clear()
            self._forget_time()

    def reconfigure(self, config: SynchronizerConfig) -> None:
        """Go on with other settings; sets that wait are handed out with what they have."""
        with self._lock:
            self._decide_all()
            self._configure(config)
            for stream in self._streams.values():
                stream.restart(self._newest_instant_ns)
        self._hand_out()

    def statistics(self) -> SynchronizerStatistics:
        """Counts up to now."""
        with self._lock:
            queued = {modality: len(stream) for modality, stream in self._streams.items()}
            queued[Modality.RGB] = len(self._waiting) + len(self._ready)
            return SynchronizerStatistics(
                received=MappingProxyType(dict(self._received)),
                emitted=self._emitted,
                dropped=MappingProxyType(
                    {key: MappingProxyType(dict(counts)) for key, counts in self._dropped.items()}
                ),
                absences=MappingProxyType(
                    {key: MappingProxyType(dict(counts)) for key, counts in self._absences.items()}
                ),
                time_jumps=self._time_jumps,
                queued=MappingProxyType(queued),
            )

    def _configure(self, config: SynchronizerConfig) -> None:
        self._config = config
        self._depth = SensorStream(config.depth, config)
        self._thermal = SensorStream(config.thermal, config)
        self._streams = {Modality.DEPTH: self._depth, Modality.THERMAL: self._thermal}
        self._offsets = {
            Modality.RGB: 0,
            Modality.DEPTH: config.depth.offset_ns,
            Modality.THERMAL: config.thermal.offset_ns,
        }

    # Time. An epoch lasts from the start, a reset or a jump to the next. Instants are stamps
    # less the camera's offset, so those of all cameras compare.

    def _forget_time(self) -> None:
        self._waiting: list[_Waiting] = []
        self._newest_rgb_ns: int | None = None
        self._last_rgb_ns = -1  # stamp of the newest set decided
        self._now_ns = 0
        self._epoch_began_ns: int | None = None  # on the clock of now_ns; None before any frame
        self._newest_instant_ns = 0
        self._instant_before_jump_ns: int | None = None
        for stream in self._streams.values():
            stream.restart(0)

    def _move_on(self, now_ns: int) -> None:
        # Threads may come in another order than they read the clock.
        if self._epoch_began_ns is None or now_ns > self._now_ns:
            self._now_ns = now_ns
        # Only frames settle sets, and each is looked at when it comes; time only ends waits.
        if self._waiting and self._waiting[0].deadline_ns <= self._now_ns:
            self._decide()

    def _begin_epoch(self, instant_ns: int, now_ns: int) -> None:
        self._now_ns = now_ns  # in a looped bag the log time jumps too
        self._epoch_began_ns = now_ns
        self._newest_instant_ns = instant_ns
        for stream in self._streams.values():
            stream.restart(instant_ns)

    def _jump_back(self, instant_ns: int, now_ns: int) -> None:
        self._decide_all()
        before_jump = self._newest_instant_ns
        self._forget_time()
        self._begin_epoch(instant_ns, now_ns)
        self._instant_before_jump_ns = before_jump
        self._time_jumps += 1

    def _is_straggler(self, instant_ns: int, now_ns: int) -> bool:
        """Whether the first frame of a camera after a jump is still one from before.

        It is if it lies nearer to the time before the jump than to that after. This cannot
        last: a single bad stamp on one camera must not shut the others out for good.
        """
        before, after = self._instant_before_jump_ns, self._newest_instant_ns
        if before is None or self._epoch_began_ns is None:
            return False
        if after >= before or now_ns - self._epoch_began_ns > self._config.startup_ns:
            self._instant_before_jump_ns = None
            return False
        return 2 * instant_ns > before + after

    # Intake and decision; all of it under the lock.

    def _take_in(self, frame: Frame, now_ns: int) -> DropReason | None:
        if frame.stamp_ns < 0:
            return DropReason.INVALID
        modality = frame.modality
        instant = frame.stamp_ns - self._offsets[modality]
        stream = self._streams.get(modality)
        newest = self._newest_rgb_ns if stream is None else stream.newest_ns
        if self._epoch_began_ns is None:
            self._begin_epoch(instant, now_ns)
        elif newest is None:
            if self._is_straggler(instant, now_ns):
                return DropReason.BEFORE_JUMP
        elif frame.stamp_ns <= newest - self._config.jump_back_ns:
            self._jump_back(instant, now_ns)
        self._newest_instant_ns = max(self._newest_instant_ns, instant)
        return self._take_in_rgb(frame) if stream is None else stream.add(frame)

    def _take_in_rgb(self, frame: Frame) -> DropReason | None:
        stamp = frame.stamp_ns
        if stamp <= self._last_rgb_ns:
            is_repeat = stamp == self._last_rgb_ns
            return DropReason.DUPLICATE if is_repeat else DropReason.OUT_OF_ORDER
        waiting = self._waiting
        position = bisect_left(waiting, stamp, key=lambda entry: entry.rgb.stamp_ns)
        if position == len(waiting):
            deadline = self._now_ns + self._config.max_wait_ns
        elif waiting[position].rgb.stamp_ns == stamp:
            return DropReason.DUPLICATE
        else:
            deadline = waiting[position].deadline_ns  # a latecomer must not hold up its successor
        waiting.insert(position, _Waiting(frame, deadline))
        if self._newest_rgb_ns is None or stamp > self._newest_rgb_ns:
            self._newest_rgb_ns = stamp
        if len(waiting) > self._config.queue_size:
            self._decide_first()
        return None

    def _decide(self) -> None:
        """Make sets of the RGB frames that need not or must not wait longer."""
        while self._waiting:
            instant = self._waiting[0].rgb.stamp_ns
            due = self._waiting[0].deadline_ns <= self._now_ns
            if not due and not (self._depth.settled(instant) and self._thermal.settled(instant)):
                return
            self._decide_first()

    def _decide_all(self) -> None:
        while self._waiting:
            self._decide_first()

    def _decide_first(self) -> None:
        rgb = self._waiting.pop(0).rgb
        self._last_rgb_ns = rgb.stamp_ns
        depth = self._depth.take(rgb.stamp_ns)
        thermal = self._thermal.take(rgb.stamp_ns)
        if depth.absence is not None:
            self._absences[Modality.DEPTH][depth.absence] += 1
        if thermal.absence is not None:
            self._absences[Modality.THERMAL][thermal.absence] += 1
        self._ready.append(FrameSet(rgb, depth, thermal))
        # One call can decide a full queue and the frame it brings.
        if len(self._ready) > self._config.queue_size + 1:
            self._ready.popleft()
            self._dropped[Modality.RGB][DropReason.OVERFLOW] += 1

    def _hand_out(self) -> None:
        """Call the callback, unless a thread (or this one, further up) is in it already.

        That one then also hands out what was added meanwhile: this keeps the order without
        anybody waiting.
        """
        while self._ready:
            with self._lock:
                if self._in_callback or not self._ready:
                    return
                self._in_callback = True
                self._emitted += 1
                frame_set = self._ready.popleft()
            try:
                self._callback(frame_set)
            finally:
                with self._lock:
                    self._in_callback = False
