"""A companion camera as the synchroniser sees it: its recent frames and what matches an instant."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from mmfusion_ros.core.frames import Absence, Companion

if TYPE_CHECKING:
    from mmfusion_ros.core.frames import Frame
    from mmfusion_ros.core.synchronizer_config import SensorTiming, SynchronizerConfig

# Gaps between stamps that make up a camera's rhythm: enough to outvote a few drops, few enough
# to follow a change of frame rate within half a second.
_GAPS_KEPT = 15
_GAPS_NEEDED = 4
# Frames for which a camera that sent one out of order is expected to do so again.
_DISORDER_REMEMBERED = 100


class DropReason(str, Enum):
    """Why a frame was not used."""

    DUPLICATE = "duplicate"  # a frame of this camera with this stamp was there already
    OUT_OF_ORDER = "out_of_order"  # older than what has been given out: too late
    BEFORE_JUMP = "before_jump"  # a straggler from before time was set back
    OVERFLOW = "overflow"  # made room for a newer one: RGB stands still, or the callback is slow
    INVALID = "invalid"  # negative stamp
    RESET = "reset"  # was waiting when the synchroniser was reset

    def __str__(self) -> str:
        return self.value


class SensorStream:
    """Recent frames of the depth or the thermal camera, in stamp order.

    Times named ``instant_ns`` are in RGB stamps, all others in this camera's stamps. Knows no
    other clock, so how fast messages arrive has no bearing on what is said here.
    """

    def __init__(self, timing: SensorTiming, config: SynchronizerConfig) -> None:
        self._offset_ns = timing.offset_ns
        self._window_ns = timing.window_ns
        self._config = config
        self.restart(0)

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def newest_ns(self) -> int | None:
        """Newest stamp since the restart."""
        return self._stamps[-1] if self._stamps else None

    def restart(self, instant_ns: int) -> None:
        """Forget everything; time now begins at ``instant_ns``."""
        self._began_ns = instant_ns + self._offset_ns
        # Parallel lists, as bisect wants plain stamps; a frame goes with "is frozen".
        self._stamps: list[int] = []
        self._frames: list[tuple[Frame, bool]] = []
        self._floor_ns = -1  # stamps given out never go below this
        self._picture: int | None = None
        self._picture_since_ns = 0
        self._gaps: deque[int] = deque(maxlen=_GAPS_KEPT)
        self._shortest_gap_ns = 0  # unknown
        self._stalled_ns = self._config.startup_ns + self._config.max_wait_ns
        self._run_in_order = _DISORDER_REMEMBERED  # frames since the last one out of order

    def add(self, frame: Frame) -> DropReason | None:
        """Take in a frame.

        Returns:
            DUPLICATE or OUT_OF_ORDER if the frame is of no use; OVERFLOW if it was taken
            but the oldest had to go; None if all is well.
        """
        stamp = frame.stamp_ns
        if stamp < self._floor_ns:
            self._run_in_order = 0
            return DropReason.OUT_OF_ORDER
        position = bisect_left(self._stamps, stamp)
        if position < len(self._stamps) and self._stamps[position] == stamp:
            return DropReason.DUPLICATE
        is_newest = position == len(self._stamps)
        self._run_in_order = self._run_in_order + 1 if is_newest else 0
        if self._stamps:
            self._learn_gap(abs(stamp - self._stamps[-1]))
        self._stamps.insert(position, stamp)
        self._frames.insert(position, (frame, self._is_frozen(frame, is_newest=is_newest)))
        if len(self._stamps) > self._config.queue_size:
            self._forget_before(1)
            return DropReason.OVERFLOW
        return None

    def settled(self, instant_ns: int) -> bool:
        """Whether waiting longer cannot, or will not, give a better match for the instant."""
        target = instant_ns + self._offset_ns
        # A quarter off the shortest gap: jitter may make the next one shorter than any so far.
        gap_ns = self._shortest_gap_ns * 3 // 4 if self._config.eager else 0
        return self._stalled(target) or self._is_final(target, gap_ns)

    def take(self, instant_ns: int) -> Companion:
        """The match for an instant, or why there is none. Instants must not decrease."""
        target = instant_ns + self._offset_ns
        if not self._stamps:
            return Companion(None, Absence.ABSENT, None)
        nearest = self._nearest(target)
        stamp = self._stamps[nearest]
        frame, frozen = self._frames[nearest]
        matches = abs(stamp - target) <= self._window_ns
        # Whatever lies before the nearest is further from all later instants too.
        self._forget_before(nearest)
        if matches or stamp <= target:
            self._floor_ns = stamp
        age = target - stamp
        if matches:
            return Companion(None, Absence.FROZEN, age) if frozen else Companion(frame, None, age)
        # LATE only if a frame was due in the window: a slow camera has none for most instants.
        final = self._stalled(target) or self._is_final(target, self._shortest_gap_ns)
        return Companion(None, Absence.STALE if final else Absence.LATE, age)

    def _nearest(self, target: int) -> int:
        """Index of the nearest frame; the earlier one of two at the same distance."""
        stamps = self._stamps
        after = bisect_left(stamps, target)
        if after == len(stamps):
            return after - 1
        if after and target - stamps[after - 1] <= stamps[after] - target:
            return after - 1
        return after

    def _is_final(self, target: int, gap_ns: int) -> bool:
        """Whether no better match can come if frames are at least ``gap_ns`` apart."""
        if not self._stamps:
            return False
        distance = abs(self._stamps[self._nearest(target)] - target)
        if 2 * distance <= gap_ns:  # a nearer frame would be too close to the nearest one
            return True
        if self._run_in_order < _DISORDER_REMEMBERED:
            return False  # the right frame may have been overtaken
        to_beat = min(distance, self._window_ns + 1)
        return self._stamps[-1] + gap_ns - target >= to_beat

    def _stalled(self, target: int) -> bool:
        newest = self._stamps[-1] if self._stamps else self._began_ns
        return target - newest > self._stalled_ns

    def _learn_gap(self, gap: int) -> None:
        self._gaps.append(gap)
        if len(self._gaps) < _GAPS_NEEDED:
            return
        gaps = sorted(self._gaps)
        self._shortest_gap_ns = gaps[0]
        # The median, as drops and pauses make single gaps long.
        period = gaps[(len(gaps) - 1) // 2]
        self._stalled_ns = self._config.stalled_periods * period + self._config.max_wait_ns

    def _is_frozen(self, frame: Frame, *, is_newest: bool) -> bool:
        picture = frame.fingerprint
        if is_newest and (picture is None or picture != self._picture):
            self._picture = picture
            self._picture_since_ns = frame.stamp_ns
        shown_ns = frame.stamp_ns - self._picture_since_ns
        limit_ns = self._config.frozen_after_ns
        return picture is not None and picture == self._picture and 0 < limit_ns <= shown_ns

    def _forget_before(self, index: int) -> None:
        del self._stamps[:index]
        del self._frames[:index]
