"""The synchroniser against brute force, on made-up streams. Times in nanoseconds, and small.

Small numbers make equal stamps, equal distances and frames on the edge of the window common.
"""

import hypothesis.strategies as st
from hypothesis import given, settings

from mmfusion_ros.core.frames import Absence, Frame, Modality, SourceImage
from mmfusion_ros.core.synchronizer import (
    DropReason,
    SensorTiming,
    Synchronizer,
    SynchronizerConfig,
)

RGB, DEPTH, THERMAL = Modality
COMPANIONS = (DEPTH, THERMAL)
IMAGE = SourceImage(b"", 0, 0, "mono8", 0)
FOREVER = 10**15

timings = st.builds(
    SensorTiming, offset_ns=st.integers(-30, 30), window_ns=st.sampled_from([0, 1, 5, 20])
)


def make_frame(modality, stamp, frame_id="", fingerprint=None):
    return Frame(modality, stamp, frame_id, IMAGE, fingerprint)


def side(companion):
    return companion.frame or companion.absence


def brute_force(frames, timing, rgb_stamp, floor=-1):
    """The nearest of all frames in the window from ``floor`` on, the earlier one of two."""
    target = rgb_stamp + timing.offset_ns
    near = [f for f in frames if f.stamp_ns >= floor]
    best = min(near, key=lambda f: (abs(f.stamp_ns - target), f.stamp_ns), default=None)
    if best is None or abs(best.stamp_ns - target) > timing.window_ns:
        return None
    return best


def merged(draw, streams):
    """The streams as one, each in its own order."""
    turns = [index for index, stream in enumerate(streams) for _ in stream]
    iterators = [iter(stream) for stream in streams]
    return [next(iterators[index]) for index in draw(st.permutations(turns))]


@st.composite
def irregular_streams(draw):
    """Per camera increasing stamps without any rhythm, some sent twice; in any interleaving."""
    streams = []
    for modality in Modality:
        gaps = draw(st.lists(st.integers(0, 40), max_size=15))
        stamp, stream = draw(st.integers(30, 60)), []
        for gap in gaps:
            stamp += gap  # a gap of zero is a repeat
            stream.append(make_frame(modality, stamp))
        streams.append(stream)
    return merged(draw, streams)


@st.composite
def regular_streams(draw):
    """Cameras with a rhythm, phases, jitter up to 7 % of the period, drops and delays.

    Below that jitter, with some frame-to-frame gaps left by the drops, the rhythm cannot
    mislead an eager synchroniser.
    """
    period = 1000
    events = []
    for modality in Modality:
        phase = draw(st.integers(0, period))
        arrival = 0
        for index in range(draw(st.integers(10, 30))):
            stamp = 2 * period + phase + index * period + draw(st.integers(-70, 70))
            dropped = index > 6 and index % 3 == 0 and draw(st.booleans())
            if not dropped:
                arrival = max(arrival, stamp + draw(st.integers(0, 1500)))
                events.append((arrival, make_frame(modality, stamp)))
    return sorted(events, key=lambda event: event[0])


def first_copies(frames, modality):
    seen = {}
    for frame in frames:
        if frame.modality is modality:
            seen.setdefault(frame.stamp_ns, frame)
    return list(seen.values())


def check_against_brute_force(sets, frames, config):
    assert [s.rgb for s in sets] == first_copies(frames, RGB)
    for modality in COMPANIONS:
        companions = first_copies(frames, modality)
        timing = getattr(config, modality)
        expected = [brute_force(companions, timing, s.stamp_ns) for s in sets]
        assert [s.companion(modality).frame for s in sets] == expected


@settings(max_examples=400, deadline=None)
@given(frames=irregular_streams(), depth=timings, thermal=timings)
def test_every_set_is_the_right_one_if_one_waits_long_enough(frames, depth, thermal):
    config = SynchronizerConfig(depth, thermal, max_wait_ns=FOREVER, eager=False)
    sets = []
    synchronizer = Synchronizer(config, sets.append)
    for now, frame in enumerate(frames):
        synchronizer.add(frame, now)
    synchronizer.flush()
    check_against_brute_force(sets, frames, config)


@settings(max_examples=150, deadline=None)
@given(
    events=regular_streams(),
    windows=st.tuples(*[st.sampled_from([50, 300, 499, 600, 2000])] * 2),
)
def test_the_rhythm_does_not_mislead(events, windows):
    depth, thermal = (SensorTiming(window_ns=window) for window in windows)
    config = SynchronizerConfig(depth, thermal, max_wait_ns=FOREVER, eager=True)
    sets = []
    synchronizer = Synchronizer(config, sets.append)
    for now, frame in events:
        synchronizer.add(frame, now)
    synchronizer.flush()
    check_against_brute_force(sets, [frame for _, frame in events], config)


messages = st.tuples(st.sampled_from(Modality), st.integers(0, 200), st.integers(0, 12))


@settings(max_examples=400, deadline=None)
@given(
    arrivals=st.lists(messages, max_size=40),
    depth=timings,
    thermal=timings,
    max_wait=st.sampled_from([0, 5, 30, 100]),
    eager=st.booleans(),
)
def test_each_set_is_the_best_of_what_has_come(arrivals, depth, thermal, max_wait, eager):
    """Any order, any repeats: the content of every set, and when it leaves."""
    config = SynchronizerConfig(
        depth, thermal, max_wait_ns=max_wait, eager=eager, stalled_periods=FOREVER, queue_size=100
    )
    arrived = []
    waiting = {}  # RGB frames that must still come out, by stamp, with the end of their wait
    floor = dict.fromkeys(COMPANIONS, -1)
    emitted = []
    now = 0
    flushing = False

    def on_set(frames):
        assert frames.stamp_ns == min(waiting), "in order"
        deadline = waiting.pop(frames.stamp_ns)
        for modality in COMPANIONS:
            companion = frames.companion(modality)
            timing = getattr(config, modality)
            known = first_copies(arrived, modality)
            best = brute_force(known, timing, frames.stamp_ns, floor[modality])
            assert companion.frame is best
            assert (companion.absence is Absence.ABSENT) is (not known)
            if best is not None:
                floor[modality] = best.stamp_ns
                assert companion.age_ns == frames.stamp_ns + timing.offset_ns - best.stamp_ns
            if not eager and not flushing and now < deadline:
                newest = max((f.stamp_ns for f in known), default=-1)
                assert newest >= frames.stamp_ns + timing.offset_ns, "left too early"
        emitted.append(frames.stamp_ns)

    synchronizer = Synchronizer(config, on_set)
    for modality, stamp, pause in arrivals:
        end = now + pause
        while (due := synchronizer.next_deadline_ns()) is not None and due <= end:
            now = due
            synchronizer.advance(now)
        now = end
        assert all(deadline > now for deadline in waiting.values()), "left too late"
        frame = make_frame(modality, stamp)
        if modality is RGB and stamp > max(emitted, default=-1) and stamp not in waiting:
            successors = [d for s, d in waiting.items() if s > stamp]
            waiting[stamp] = min([now + max_wait, *successors])
        arrived.append(frame)
        synchronizer.add(frame, now)
    flushing = True
    synchronizer.flush()
    assert not waiting
    assert emitted == sorted(set(emitted))


@st.composite
def chaos(draw):
    """Disorder, repeats, jumps, frozen pictures, tiny queues: nothing is out of bounds."""
    config = SynchronizerConfig(
        draw(timings),
        draw(timings),
        max_wait_ns=draw(st.sampled_from([0, 10, 100])),
        frozen_after_ns=draw(st.sampled_from([1, 40])),
        jump_back_ns=draw(st.sampled_from([40, 150])),
        startup_ns=draw(st.sampled_from([0, 50])),
        stalled_periods=draw(st.integers(1, 3)),
        queue_size=draw(st.sampled_from([1, 3, 50])),
        eager=draw(st.booleans()),
    )
    message = st.tuples(messages, st.sampled_from([None, 1, 2]))
    events, now = [], 0
    for (modality, stamp, pause), fingerprint in draw(st.lists(message, max_size=60)):
        now += pause
        events.append((make_frame(modality, stamp - 3, "", fingerprint), now))
    return config, events


def picture_of(frames):
    return [
        (s.rgb, side(s.depth), s.depth.age_ns, side(s.thermal), s.thermal.age_ns) for s in frames
    ]


@settings(max_examples=300, deadline=None)
@given(case=chaos(), data=st.data())
def test_only_frames_and_arrival_times_decide(case, data):
    """Timer calls in between, many or none, change when sets come out and nothing else."""
    config, events = case
    results = []
    for ticking in (False, False, True):
        sets = []
        synchronizer = Synchronizer(config, sets.append)
        before = 0
        for frame, now in events:
            if ticking:
                for tick in sorted(data.draw(st.lists(st.integers(before, now), max_size=2))):
                    synchronizer.advance(tick)
            synchronizer.add(frame, now)
            before = now
        synchronizer.flush()
        results.append((picture_of(sets), synchronizer.statistics()))
        synchronizer.reset()
        sets.clear()
        for frame, now in events:
            synchronizer.add(frame, now)
        synchronizer.flush()
        assert picture_of(sets) == results[0][0], "after a reset it is as new"
    assert results[0] == results[1] == results[2]


@settings(max_examples=300, deadline=None)
@given(case=chaos())
def test_what_holds_in_any_case(case):
    config, events = case
    sets = []
    synchronizer = Synchronizer(config, sets.append)
    for frame, now in events:
        synchronizer.add(frame, now)
        statistics = synchronizer.statistics()
        assert all(count <= config.queue_size for count in statistics.queued.values())
        assert statistics.received[RGB] == (
            statistics.emitted + sum(statistics.dropped[RGB].values()) + statistics.queued[RGB]
        )
    synchronizer.flush()
    statistics = synchronizer.statistics()
    assert statistics.queued[RGB] == 0
    assert statistics.emitted == len(sets) == len({id(s.rgb) for s in sets})
    received = [frame for frame, _ in events]
    backwards = 0
    floor = dict.fromkeys(COMPANIONS, -1)
    previous = -1
    for frames in sets:
        assert frames.rgb in received
        if frames.stamp_ns <= previous:
            backwards += 1
            floor = dict.fromkeys(COMPANIONS, -1)
        previous = frames.stamp_ns
        for modality in COMPANIONS:
            companion = frames.companion(modality)
            timing = getattr(config, modality)
            assert (companion.age_ns is None) is (companion.absence is Absence.ABSENT)
            if companion.frame is not None:
                stamp = companion.frame.stamp_ns
                assert companion.frame in received
                assert companion.age_ns == frames.stamp_ns + timing.offset_ns - stamp
                assert abs(companion.age_ns) <= timing.window_ns
                # A jump that only moves companions back is one too.
                if stamp < floor[modality]:
                    backwards += 1
                    floor = dict.fromkeys(COMPANIONS, -1)
                floor[modality] = stamp
    assert backwards <= statistics.time_jumps
    for modality in COMPANIONS:
        missing = sum(s.companion(modality).frame is None for s in sets)
        assert sum(statistics.absences[modality].values()) == missing


@st.composite
def looped_bag(draw):
    """Three laps of 3 s at 10 Hz; cameras reach the end of a lap at different times."""
    events = []
    for modality in Modality:
        arrival = 0
        for lap in range(3):
            for index in range(30):
                if 5 < index < 25 and draw(st.booleans()):
                    continue
                stamp = 100 * index + draw(st.integers(0, 5))
                arrival = max(arrival, 3000 * lap + stamp + draw(st.integers(0, 200)))
                events.append((arrival, make_frame(modality, stamp, frame_id=str(lap))))
    return sorted(events, key=lambda event: event[0])


@settings(max_examples=60, deadline=None)
@given(events=looped_bag(), max_wait=st.sampled_from([25, 500]))
def test_laps_of_a_bag_never_mix(events, max_wait):
    wide = SensorTiming(window_ns=60)
    config = SynchronizerConfig(
        wide, wide, max_wait_ns=max_wait, jump_back_ns=1000, startup_ns=1000
    )
    sets = []
    synchronizer = Synchronizer(config, sets.append)
    for now, frame in events:
        synchronizer.add(frame, now)
    synchronizer.flush()
    for frames in sets:
        for modality in COMPANIONS:
            companion = frames.companion(modality).frame
            assert companion is None or companion.frame_id == frames.rgb.frame_id
    assert synchronizer.statistics().time_jumps == 2
    # Nothing is lost but what came before the other cameras had jumped as well.
    rgb = [frame for _, frame in events if frame.modality is RGB]
    lost = len(rgb) - len(sets)
    assert lost == synchronizer.statistics().dropped[RGB][DropReason.BEFORE_JUMP] <= 2 * 3
