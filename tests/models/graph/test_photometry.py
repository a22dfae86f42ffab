"""Bytes to values and back, and a display range that does not flicker."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.graph import photometry

pytestmark = pytest.mark.torch


def counts_of(values):
    return torch.as_tensor(values, dtype=torch.float32)[None, None]


def test_sixteen_bits_come_back_exactly():
    counts = np.arange(65536, dtype="<u2").reshape(256, 256)
    raw = torch.from_numpy(counts.view(np.uint8).reshape(256, 256, 2))
    np.testing.assert_array_equal(photometry.unpack_counts(raw)[0, 0].numpy(), counts)


def test_eight_bits_come_back_exactly():
    raw = torch.arange(256, dtype=torch.uint8).view(16, 16, 1)
    np.testing.assert_array_equal(photometry.unpack_counts(raw)[0, 0].numpy(), raw[..., 0])


def test_colours_survive_splitting_and_recombining():
    rgb = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8)
    colour = photometry.split_colour(photometry.unpack_rgb8(rgb))
    back = photometry.pack_uint8(photometry.recombine(colour))
    # The published constants are rounded to three digits; one grey level is what they cost.
    assert (back.int() - rgb.int()).abs().max() <= 1


def test_luma_is_that_of_bt601():
    rgb = torch.tensor([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=torch.uint8)
    luma = photometry.split_colour(photometry.unpack_rgb8(rgb)).luma
    torch.testing.assert_close(luma[0, 0, 0], torch.tensor([0.299, 0.587, 0.114]))


class TestThermalRange:
    present = torch.tensor(1.0)
    unset = torch.zeros(2)

    def test_the_first_frame_sets_it(self):
        counts = counts_of(np.linspace(20000, 21000, 240 * 320).reshape(240, 320))
        low, high = photometry.next_thermal_range(counts, self.unset, self.present, 50).tolist()
        assert low == pytest.approx(20005, abs=25)
        assert high == pytest.approx(20995, abs=25)

    def test_a_few_hot_pixels_do_not_change_it(self):
        values = np.random.default_rng(0).uniform(20000, 21000, (240, 320))
        before = photometry.next_thermal_range(counts_of(values), self.unset, self.present, 50)
        values[100:104, 100:104] = 60000
        after = photometry.next_thermal_range(counts_of(values), before, self.present, 50)
        assert (after - before).abs().max() < 5

    def test_a_new_hot_object_is_followed_slowly_and_steadily(self):
        values = np.random.default_rng(0).uniform(20000, 21000, (240, 320))
        carried = photometry.next_thermal_range(counts_of(values), self.unset, self.present, 50)
        values[50:120, 50:120] = 21900
        highs = []
        for _ in range(60):
            carried = photometry.next_thermal_range(counts_of(values), carried, self.present, 50)
            highs.append(carried[1].item())
        assert np.diff([21000, *highs]).max() < 200  # a fifth of the change per frame
        assert (np.diff(highs) >= 0).all()
        assert highs[-1] == pytest.approx(21900, abs=5)

    def test_another_scene_is_taken_at_once(self):
        cold, hot = counts_of(np.full((48, 64), 20000.0)), counts_of(np.full((48, 64), 30000.0))
        carried = photometry.next_thermal_range(cold, self.unset, self.present, 50)
        carried = photometry.next_thermal_range(hot, carried, self.present, 50)
        assert carried.tolist() == [29975, 30025]

    def test_a_scene_of_much_less_contrast_is_followed_in_a_few_frames(self):
        rng = np.random.default_rng(0)
        wide = counts_of(rng.uniform(18000, 20000, (48, 64)))
        narrow = counts_of(rng.uniform(19800, 19900, (48, 64)))
        carried = photometry.next_thermal_range(wide, self.unset, self.present, 50)
        for _ in range(8):
            before = carried
            carried = photometry.next_thermal_range(narrow, carried, self.present, 50)
            assert carried[0] - before[0] < 1000  # never more than half of the way
        assert carried[0] == pytest.approx(19800, abs=150)

    def test_a_scene_mostly_outside_is_followed_in_a_few_frames(self):
        rng = np.random.default_rng(0)
        first = counts_of(rng.uniform(18180, 18350, (48, 64)))
        second = counts_of(rng.uniform(18336, 18440, (48, 64)))
        carried = photometry.next_thermal_range(first, self.unset, self.present, 50)
        for _ in range(6):
            carried = photometry.next_thermal_range(second, carried, self.present, 50)
        assert carried.tolist() == pytest.approx([18336, 18440], abs=40)

    def test_an_absent_camera_leaves_it(self):
        carried = torch.tensor([100.0, 200.0])
        counts = counts_of(np.zeros((48, 64)))
        after = photometry.next_thermal_range(counts, carried, torch.tensor(0.0), 50)
        assert torch.equal(after, carried)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 65535), st.integers(0, 2000))
    def test_never_narrower_than_the_least_span(self, height, width, base, spread):
        rng = np.random.default_rng(height * 100 + width)
        counts = counts_of(base + rng.integers(0, spread + 1, (height, width)))
        low, high = photometry.next_thermal_range(counts, self.unset, self.present, 50).tolist()
        assert high - low >= 50 - 0.02
        normalised = photometry.normalise_counts(counts, torch.tensor([low, high]))
        assert 0 <= normalised.min() <= normalised.max() <= 1
