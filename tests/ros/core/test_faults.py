"""Faults do what they say, to whom they say, and the same on every run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.faults import parse_fault, with_faults
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.playback import Picture

RGB, DEPTH, THERMAL = Modality
MS = 1_000_000
PERIOD = 100 * MS
KINDS = {RGB: ("rgb8", np.uint8, (4, 6, 3)), DEPTH: ("16UC1", np.uint16, (4, 6))}
KINDS[THERMAL] = ("mono16", np.uint16, (4, 6))


def picture(modality: Modality, due_ns: int, seed: int = 0) -> Picture:
    encoding, dtype, shape = KINDS[modality]
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)
    return Picture(due_ns, due_ns, modality, pixels, encoding)


def stream(sets: int = 20) -> list[Picture]:
    return [
        picture(modality, number * PERIOD + offset * MS, seed=number)
        for number in range(sets)
        for offset, modality in enumerate(Modality)
    ]


def faulty(pictures: list[Picture], *faults: str, seed: int = 0) -> list[Picture]:
    return list(with_faults(pictures, [parse_fault(text) for text in faults], seed))


def of(modality: Modality, pictures: list[Picture]) -> list[Picture]:
    return [each for each in pictures if each.modality is modality]


def same(first: Picture, second: Picture) -> bool:
    fields = ("due_ns", "stamp_ns", "modality", "encoding", "round_ns", "sent")
    return all(getattr(first, name) == getattr(second, name) for name in fields) and bool(
        np.array_equal(first.pixels, second.pixels)
    )


numbers = st.floats(0, 0.99).map(lambda value: f"{value:.3f}")
spans = st.one_of(
    st.just(""),
    st.integers(0, 2).map(lambda start: f"@{start}"),
    st.tuples(st.integers(0, 2), st.integers(1, 3)).map(lambda s: f"@{s[0]}-{s[0] + s[1]}"),
)
starts = st.one_of(st.just(""), st.integers(0, 2).map(lambda start: f"@{start}"))
cameras = st.sampled_from(["rgb", "depth", "thermal", "all"])
fault_texts = st.one_of(
    st.builds("{}:drop={}{}".format, cameras, numbers, spans),
    st.builds("{}:stall={}{}".format, cameras, st.just("0.5"), starts),
    st.builds("{}:freeze={}{}".format, cameras, st.just("0.5"), starts),
    st.builds("{}:delay_ms={}{}".format, cameras, st.integers(0, 500), spans),
    st.builds("{}:jitter_ms={}{}".format, cameras, st.integers(0, 500), spans),
    st.builds("{}:jump_s={}{}".format, cameras, st.integers(-5, 5), spans),
    st.builds("{}:noise={}{}".format, cameras, st.integers(0, 50), spans),
    st.builds("{}:shift={},{}{}".format, cameras, st.integers(-2, 2), st.integers(-2, 2), spans),
    st.builds("{}:truncate={}{}".format, cameras, numbers, spans),
)
fault_lists = st.lists(fault_texts, max_size=4)


@settings(deadline=None, max_examples=60)
@given(fault_lists, st.integers(0, 2**32))
def test_any_faults_keep_the_order_and_come_again_with_the_seed(texts, seed):
    pictures = stream(8)
    before = [each.pixels.copy() for each in pictures]
    played = faulty(pictures, *texts, seed=seed)
    dues = [each.due_ns for each in played]
    assert dues == sorted(dues)
    assert len(played) <= len(pictures)
    for each in played:
        assert each.pixels.dtype == KINDS[each.modality][1]
        assert each.pixels.shape == KINDS[each.modality][2]
        assert 0 <= each.sent <= 1
    again = faulty(pictures, *texts, seed=seed)
    assert len(again) == len(played)
    assert all(map(same, played, again))
    assert all(map(np.array_equal, before, (each.pixels for each in pictures)))


@settings(deadline=None, max_examples=40)
@given(fault_texts, fault_texts)
def test_a_fault_of_one_camera_changes_nothing_for_another(text, other):
    text, other = (each.partition(":")[2] for each in (text, other))
    alone, beside = (
        faulty(stream(6), f"depth:{text}"),
        faulty(stream(6), f"depth:{text}", f"rgb:{other}"),
    )
    for modality, expected in ((DEPTH, alone), (THERMAL, stream(6))):
        pairs = zip(of(modality, expected), of(modality, beside), strict=True)
        assert all(itertools.starmap(same, pairs))


@pytest.mark.parametrize("text", ["rgb:drop=0", "all:delay_ms=0", "depth:noise=0", "all:scale=1"])
def test_no_fault_changes_nothing(text):
    assert all(map(same, stream(), faulty(stream(), text)))


def test_faults_come_one_by_one_from_an_endless_stream():
    endless = (picture(RGB, number * PERIOD) for number in itertools.count())
    played = with_faults(endless, [parse_fault("rgb:delay_ms=250")])
    assert [next(played).due_ns for _ in range(3)] == [250 * MS, 350 * MS, 450 * MS]


def test_drop_leaves_out_that_share():
    pictures = [picture(RGB, number * MS) for number in range(2000)]
    kept = len(faulty(pictures, "rgb:drop=0.2"))
    assert 1500 < kept < 1700
    assert not faulty(pictures, "rgb:drop=1")
    assert len(faulty(pictures, "rgb:drop=0.2", seed=1)) != kept


def test_stall_sends_nothing_for_so_long():
    played = faulty(stream(), "thermal:stall=0.5@0.4")
    dues = [each.due_ns for each in of(THERMAL, played)]
    assert [due for due in dues if 400 * MS <= due < 900 * MS] == []
    assert len(dues) == 15
    assert len(played) == 55


def test_freeze_repeats_the_picture_while_stamps_go_on():
    pictures = stream()
    played = faulty(pictures, "thermal:freeze=0.5@0.4")
    before, after = of(THERMAL, pictures), of(THERMAL, played)
    assert [each.stamp_ns for each in after] == [each.stamp_ns for each in before]
    for number, each in enumerate(after):
        shown = 4 if 4 <= number < 9 else number
        np.testing.assert_array_equal(each.pixels, before[shown].pixels)


def test_delay_and_jitter_send_later_with_the_same_stamps():
    pictures = stream()
    for text, latest in (("depth:delay_ms=40", 40), ("depth:jitter_ms=40", 40)):
        late = {
            round((each.due_ns - each.stamp_ns) / MS) for each in of(DEPTH, faulty(pictures, text))
        }
        assert max(late) <= latest
        assert late == {40} if "delay" in text else len(late) > 5
    stamps = [each.stamp_ns for each in of(DEPTH, faulty(pictures, "depth:delay_ms=40"))]
    assert stamps == [each.stamp_ns for each in of(DEPTH, pictures)]


def test_a_jump_concerns_stamps_alone_from_its_start_on():
    played = faulty(stream(), "all:jump_s=-3@1")
    for each in played:
        assert each.stamp_ns - each.due_ns == (-3000 * MS if each.due_ns >= 1000 * MS else 0)


def test_noise_is_as_strong_as_said_and_clipped():
    flat = Picture(0, 0, THERMAL, np.full((200, 200), 3000, np.uint16), "mono16")
    (noisy,) = faulty([flat], "thermal:noise=30")
    assert noisy.pixels.std() == pytest.approx(30, rel=0.05)
    assert noisy.pixels.mean() == pytest.approx(3000, abs=1)
    for value in (0, 255):
        edge = Picture(0, 0, RGB, np.full((50, 50, 3), value, np.uint8), "rgb8")
        (noisy,) = faulty([edge], "rgb:noise=20")
        assert abs(noisy.pixels.astype(int) - value).max() < 128  # nothing wrapped around
        assert (noisy.pixels == value).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("dtype", "unit"), [(np.uint16, 1), (np.float32, 1000)])
def test_noise_makes_up_no_depth(dtype, unit):
    pixels = np.full((100, 100), 2000 / unit, dtype)
    pixels[:50] = 0
    encoding = "16UC1" if dtype is np.uint16 else "32FC1"
    (noisy,) = faulty([Picture(0, 0, DEPTH, pixels, encoding)], "depth:noise=25")
    assert noisy.pixels.dtype == dtype
    assert not noisy.pixels[:50].any()
    assert noisy.pixels[50:].std() * unit == pytest.approx(25, rel=0.05)


def test_misregistration_moves_the_picture():
    pixels = np.zeros((31, 41), np.uint16)
    pixels[15, 20] = pixels[15, 30] = 9000
    (shifted,) = faulty([Picture(0, 0, THERMAL, pixels, "mono16")], "thermal:shift=6,-2")
    assert {tuple(map(int, at)) for at in np.argwhere(shifted.pixels)} == {(13, 26), (13, 36)}
    depth = Picture(0, 0, DEPTH, pixels, "16UC1")
    (turned,) = faulty([depth], "depth:rotate_deg=90")
    assert {tuple(map(int, at)) for at in np.argwhere(turned.pixels)} == {(15, 20), (5, 20)}
    (larger,) = faulty([depth], "depth:scale=2")
    assert larger.pixels[15, 40] == 9000
    assert set(np.unique(larger.pixels)) == {0, 9000}
    (bare,) = faulty(
        [Picture(0, 0, DEPTH, np.full((4, 6), 7, np.uint16), "16UC1")], "depth:shift=2,0"
    )
    np.testing.assert_array_equal(bare.pixels, [[0, 0, 7, 7, 7, 7]] * 4)


def test_faults_of_one_camera_act_one_after_the_other():
    (each,) = faulty([picture(RGB, 0)], "rgb:truncate=0.5", "rgb:truncate=0.5", "rgb:jump_s=1")
    assert (each.sent, each.stamp_ns) == (0.25, 10**9)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not of the form"),
        ("thermal", "not of the form"),
        ("thermal:drop", "not of the form"),
        ("thermal:drop=0.2@", "not of the form"),
        ("thermal:drop=0.2@1-2-3", "not of the form"),
        ("lidar:drop=0.2", "no camera 'lidar'"),
        ("thermal:melt=1", "no kind 'melt'"),
        ("thermal:drop=much", "'much' is no number"),
        ("thermal:drop=1.2", "SHARE is 1.2; expected 0 to 1"),
        ("thermal:drop=nan", "SHARE is nan; expected 0 to 1"),
        ("depth:delay_ms=-3", "MS is -3; expected 0 to 10000"),
        ("depth:shift=3", "shift takes 2 value"),
        ("depth:drop=0.1,0.2", "drop takes 1 value"),
        ("depth:drop=0.1@5-4", "ends before it starts"),
        ("depth:drop=0.1@x", "'x' is no number"),
        ("depth:freeze=1@4-5", "leave the end out"),
        ("depth:stall=0", "ends before it starts"),
    ],
)
def test_what_is_no_fault_is_refused_with_all_there_is(text, problem):
    with pytest.raises(MmfusionError) as raised:
        parse_fault(text)
    message = str(raised.value)
    assert message.startswith(f"{text!r} is no fault: ")
    assert problem in message
    assert "rgb, depth, thermal, all" in message
    for kind in ("drop=SHARE", "stall=", "freeze=", "shift=X,Y", "truncate=", "jump_s=", "noise="):
        assert kind in message
