"""What can be set about the synchroniser, checked when it is set."""

from __future__ import annotations

from dataclasses import dataclass, field


def _check_whole(name: str, value: object, unit: str, minimum: int | None = None) -> None:
    # A float here is nearly always a time in seconds or milliseconds: say so early.
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number of {unit}, got {value!r}")
    if minimum is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum} {unit}, got {value}")


@dataclass(frozen=True)
class SensorTiming:
    """How the stamps of a depth or thermal camera relate to those of the RGB camera.

    Attributes:
        offset_ns: expected stamp of this camera minus the RGB stamp of the same instant;
            positive if this camera stamps later.
        window_ns: a frame at most this far from the expected stamp is a match (inclusive).
            A camera slower than the RGB one serves every RGB frame if the window is half
            its period.
    """

    offset_ns: int = 0
    window_ns: int = 15_000_000

    def __post_init__(self) -> None:
        _check_whole("offset_ns", self.offset_ns, "nanoseconds")
        _check_whole("window_ns", self.window_ns, "nanoseconds", minimum=0)


@dataclass(frozen=True)
class SynchronizerConfig:
    """Settings of a synchroniser.

    Attributes:
        depth: timing of the depth camera.
        thermal: timing of the thermal camera.
        max_wait_ns: a set leaves at the latest this long after its RGB frame arrived.
        frozen_after_ns: a camera that has shown the same picture for this long, by its
            stamps, is frozen; 0 for never (a simulator's pictures have no noise).
        jump_back_ns: a stamp this much before the newest of the same camera means that time
            was set back (looped bag, simulator reset); a smaller step back is a message out
            of order. Keep it below the length of a bag that is played in a loop.
        startup_ns: how long after the start or a time jump a camera may take to show up
            before sets no longer wait for it.
        stalled_periods: a camera that lies this many of its own frame periods behind (and
            ``max_wait_ns`` on top, for its latency) is stalled: sets leave without waiting
            for it until it has caught up.
        queue_size: frames kept of each camera, and sets kept while the callback is busy.
        eager: take a frame shortly before the wanted instant without waiting for the next
            one, when the camera's rhythm says that the next one will be further away. Off:
            always wait for it, which costs latency and helps only cameras without a rhythm.
    """

    depth: SensorTiming = field(default_factory=SensorTiming)
    thermal: SensorTiming = field(default_factory=SensorTiming)
    max_wait_ns: int = 25_000_000
    frozen_after_ns: int = 250_000_000
    jump_back_ns: int = 1_000_000_000
    startup_ns: int = 1_000_000_000
    stalled_periods: int = 3
    queue_size: int = 32
    eager: bool = True

    def __post_init__(self) -> None:
        _check_whole("max_wait_ns", self.max_wait_ns, "nanoseconds", minimum=0)
        _check_whole("frozen_after_ns", self.frozen_after_ns, "nanoseconds", minimum=0)
        _check_whole("jump_back_ns", self.jump_back_ns, "nanoseconds", minimum=1)
        _check_whole("startup_ns", self.startup_ns, "nanoseconds", minimum=0)
        _check_whole("stalled_periods", self.stalled_periods, "frame periods", minimum=1)
        _check_whole("queue_size", self.queue_size, "frames", minimum=1)
        widest = max(self.depth.window_ns, self.thermal.window_ns)
        if self.jump_back_ns <= widest:
            # Else frames from before and after a jump could lie in one window.
            raise ValueError(
                f"jump_back_ns must be longer than both match windows ({widest} ns), "
                f"got {self.jump_back_ns}"
            )
