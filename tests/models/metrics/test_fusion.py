"""Fusion measures against published-formula values, edge cases and properties."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference_images import colour, grey

from mmfusion import metrics
from mmfusion.metrics import MetricError, fusion_metrics

VISIBLE = grey("vi")
INFRARED = grey("ir")
COLOUR = colour("vi_rgb")
FUSED = {
    "fused": grey("fused"),
    "mean": ((VISIBLE.astype(np.uint16) + INFRARED + 1) // 2).astype(np.uint8),
    "max": np.maximum(VISIBLE, INFRARED),
    "vi": VISIBLE,
}

# Columns as in FUSED. Computed once with scikit-image, torchmetrics, piq and plain formulas.
VALUES = {
    "EN": (7.910024, 7.598354, 7.641149, 7.910042),
    "SD": (67.624044, 47.807983, 55.527003, 67.570068),
    "SF": (52.363714, 35.971669, 47.917702, 50.047914),
    "AG": (18.464378, 11.957553, 15.808681, 15.970678),
    "MI_ir": (0.464585, 0.697317, 2.585681, 0.461393),
    "MI_vi": (0.461344, 0.693071, 2.500477, 5.482823),
    "MI": (0.925929, 1.390389, 5.086158, 5.944216),
    "SCD": (-0.001154, 1.413306, 1.233062, math.nan),
    "VIF_ir": (0.027034, 0.238908, 0.269281, 0.007435),
    "VIF_vi": (0.019991, 0.065533, 0.161467, 1.000000),
    "VIF": (0.047025, 0.304441, 0.430748, 1.007435),
    "Q_ABF": (0.147012, 0.277231, 0.469915, 0.497988),
    "SSIM_ir": (0.030600, 0.661568, 0.574934, 0.029489),
    "SSIM_vi": (0.027303, 0.576988, 0.510006, 1.000000),
    "SSIM": (0.057903, 1.238556, 1.084940, 1.029489),
}
ROUNDING = 6e-7  # the values above have six digits


@pytest.mark.parametrize(
    ("picture", "crc"),
    [
        (VISIBLE, 0xC0B7FCB9),
        (INFRARED, 0xDF311E1F),
        (FUSED["fused"], 0x649C5BF4),
        (FUSED["mean"], 0x93AE8A91),
        (FUSED["max"], 0x5420A740),
        (COLOUR, 0xA0399E85),
        (metrics.value(COLOUR), 0x3B84D138),
        (metrics.luma(COLOUR), 0xC36F8F42),
    ],
)
def test_pictures_have_the_bytes_the_values_were_made_from(picture, crc):
    assert zlib.crc32(np.ascontiguousarray(picture).tobytes()) == crc


class TestReferenceValues:
    @pytest.mark.parametrize("column", range(4), ids=list(FUSED))
    def test_table(self, column):
        fused = list(FUSED.values())[column]
        got = fusion_metrics(fused, INFRARED, VISIBLE, names=VALUES)
        assert list(got) == list(VALUES)
        for name, row in VALUES.items():
            assert got[name] == pytest.approx(row[column], abs=ROUNDING, nan_ok=True), name

    def test_value_channel(self):
        self._check_channel(
            metrics.value(COLOUR), (7.325235, 45.554469, 45.869968, 14.897878, 0.011781, 0.500306)
        )

    def test_luma_channel(self):
        self._check_channel(
            metrics.luma(COLOUR), (7.513530, 45.374794, 34.197247, 11.368470, 0.021731, 0.440029)
        )

    def _check_channel(self, channel, expected):
        names = ("EN", "SD", "SF", "AG", "VIF_ir", "Q_ABF")
        got = fusion_metrics(channel, INFRARED, channel, names)
        assert tuple(got.values()) == pytest.approx(expected, abs=ROUNDING)

    def test_single_functions_are_the_same(self):
        fused = FUSED["mean"]
        got = fusion_metrics(fused, INFRARED, VISIBLE)
        assert metrics.entropy(fused) == got["EN"]
        assert metrics.standard_deviation(fused) == got["SD"]
        assert metrics.spatial_frequency(fused) == got["SF"]
        assert metrics.average_gradient(fused) == got["AG"]
        assert metrics.correlation_of_differences(fused, INFRARED, VISIBLE) == got["SCD"]
        assert metrics.edge_preservation(fused, INFRARED, VISIBLE) == got["Q_ABF"]
        for name, single in (
            ("MI", metrics.mutual_information),
            ("VIF", metrics.visual_information_fidelity),
            ("SSIM", metrics.structural_similarity),
        ):
            assert single(fused, INFRARED) + single(fused, VISIBLE) == got[name]


class TestEdgeCases:
    @pytest.mark.parametrize("level", [0, 128, 255])
    def test_constant_fused(self, level):
        got = fusion_metrics(np.full_like(VISIBLE, level), INFRARED, VISIBLE)
        for name in ("EN", "SD", "SF", "AG", "MI", "VIF"):
            assert got[name] == 0.0, name
        assert not math.copysign(1.0, got["EN"]) < 0.0
        if level == 128:
            assert got["Q_ABF"] == pytest.approx(0.034065, abs=ROUNDING)
            assert got["SCD"] == pytest.approx(-0.002496, abs=ROUNDING)

    @pytest.mark.parametrize("level", [0, 77, 255])
    def test_constant_infrared(self, level):
        names = [*VALUES]
        got = fusion_metrics(FUSED["fused"], np.full_like(VISIBLE, level), VISIBLE, names)
        undefined = {name for name, value in got.items() if math.isnan(value)}
        assert undefined == {"SCD", "VIF_ir", "VIF"}

    def test_all_three_equal(self):
        names = ("VIF_ir", "VIF_vi", "Q_ABF", "SCD", "MI", "SSIM")
        got = tuple(fusion_metrics(VISIBLE, VISIBLE, VISIBLE, names).values())
        expected = (1.0, 1.0, 0.974794, math.nan, 10.965646, 2.0)
        assert got == pytest.approx(expected, abs=ROUNDING, nan_ok=True)

    def test_no_edges_anywhere(self):
        black = np.zeros((50, 50), np.uint8)
        assert math.isnan(metrics.edge_preservation(black, black, black))

    def test_sizes_differ(self):
        with pytest.raises(MetricError, match="fused is 320x240 but visible is 310x240"):
            fusion_metrics(FUSED["fused"], INFRARED, VISIBLE[:, 10:])
        with pytest.raises(MetricError, match="nothing is resized"):
            metrics.mutual_information(VISIBLE, INFRARED[1:])

    def test_smallest_side(self):
        small = FUSED["fused"][:40], INFRARED[:40], VISIBLE[:40]
        with pytest.raises(MetricError, match="at least 41 pixels, the pictures are 320x40"):
            fusion_metrics(*small)
        rest = [name for name in metrics.FUSION_METRICS if name != "VIF"]
        assert all(map(math.isfinite, fusion_metrics(*small, names=rest).values()))
        enough = FUSED["fused"][:41, :41], INFRARED[:41, :41], VISIBLE[:41, :41]
        assert all(map(math.isfinite, fusion_metrics(*enough).values()))
        with pytest.raises(MetricError, match="SSIM needs sides of at least 11"):
            metrics.structural_similarity(VISIBLE[:10], VISIBLE[:10])
        with pytest.raises(MetricError, match="at least 2 pixels"):
            metrics.average_gradient(VISIBLE[:1])

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (COLOUR, "choose one with luma"),
            (VISIBLE.astype(np.float32) * 2, "expected finite grey levels"),
            (np.where(VISIBLE > 250, np.nan, 1.0), "expected finite grey levels"),
            (VISIBLE.astype(np.int32) - 200, "expected finite grey levels"),
            (VISIBLE > 3, "has dtype bool"),
        ],
    )
    def test_what_is_no_grey_picture(self, bad, message):
        with pytest.raises(MetricError, match=message):
            fusion_metrics(bad, INFRARED, VISIBLE)

    def test_unknown_name(self):
        with pytest.raises(MetricError, match="unknown fusion metric 'Qabf'; known are EN"):
            fusion_metrics(VISIBLE, INFRARED, VISIBLE, names=["Qabf"])

    def test_channels_of_a_grey_picture_are_the_picture(self):
        assert metrics.luma(VISIBLE) is VISIBLE
        assert metrics.value(VISIBLE) is VISIBLE
        with pytest.raises(MetricError, match="expected uint8"):
            metrics.luma(COLOUR.astype(np.float32))

    def test_inputs_are_left_alone(self):
        pictures = [x.astype(np.float64) for x in (FUSED["fused"], INFRARED, VISIBLE)]
        copies = [x.copy() for x in pictures]
        fusion_metrics(*pictures)
        for picture, copy in zip(pictures, copies, strict=True):
            np.testing.assert_array_equal(picture, copy)


@st.composite
def picture_sets(draw, count=3):
    """Small grey pictures of one size: noise, steps, ramps, or whatever is drawn."""
    height, width = draw(st.integers(41, 52)), draw(st.integers(41, 52))
    pictures = []
    for _ in range(count):
        kind = draw(st.sampled_from(["noise", "blocks", "ramp"]))
        if kind == "noise":
            seed = draw(st.integers(0, 2**32 - 1))
            picture = np.random.default_rng(seed).integers(0, 256, (height, width))
        elif kind == "blocks":
            coarse = draw(hnp.arrays(np.uint8, (4, 4)))
            picture = np.kron(coarse, np.ones((13, 13)))[:height, :width]
        else:
            y, x = np.mgrid[:height, :width]
            picture = 2 * y + draw(st.integers(0, 2)) * x
        pictures.append(picture.astype(np.uint8))
    return pictures


class TestProperties:
    @settings(max_examples=40, deadline=None)
    @given(picture_sets())
    def test_swapping_the_sources_changes_nothing(self, pictures):
        fused, first, second = pictures
        one = fusion_metrics(fused, first, second)
        other = fusion_metrics(fused, second, first)
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12, nan_ok=True)

    @settings(max_examples=40, deadline=None)
    @given(picture_sets())
    def test_bounds(self, pictures):
        got = fusion_metrics(*pictures)
        assert 0.0 <= got["EN"] <= 8.0
        assert 0.0 <= got["SD"] <= 127.5
        assert got["SF"] >= 0.0
        assert got["AG"] >= 0.0
        assert -1e-12 <= got["MI"] <= 2.0 * got["EN"] * math.log(2.0) + 1e-9
        assert math.isnan(got["SCD"]) or abs(got["SCD"]) <= 2.0 + 1e-9
        assert math.isnan(got["VIF"]) or got["VIF"] >= 0.0
        assert math.isnan(got["Q_ABF"]) or 0.0 <= got["Q_ABF"] <= 0.9749
        assert abs(got["SSIM"]) <= 2.0 + 1e-9

    @settings(max_examples=40, deadline=None)
    @given(picture_sets(count=1))
    def test_identity(self, pictures):
        (picture,) = pictures
        names = ("VIF_ir", "SSIM_ir", "MI_ir", "EN")
        vif, ssim, shared, entropy = fusion_metrics(picture, picture, picture, names).values()
        assert math.isnan(vif) or vif == pytest.approx(1.0, abs=1e-6)
        assert ssim == pytest.approx(1.0, abs=1e-9)
        assert shared == pytest.approx(entropy * math.log(2.0), abs=1e-9)

    @settings(max_examples=20, deadline=None)
    @given(picture_sets(), st.sampled_from([np.float32, np.float64, np.uint16, np.int64]))
    def test_the_dtype_does_not_matter(self, pictures, dtype):
        want = fusion_metrics(*pictures)
        got = fusion_metrics(*(picture.astype(dtype) for picture in pictures))
        assert got == pytest.approx(want, abs=1e-12, nan_ok=True)

    @settings(max_examples=20, deadline=None)
    @given(picture_sets())
    def test_mirroring_keeps_what_has_no_direction(self, pictures):
        """All but Q_ABF, whose vertical-edge rule has a side, and VIF, which drops odd rows."""
        names = ("EN", "SD", "SF", "AG", "MI", "SCD", "SSIM")
        want = fusion_metrics(*pictures, names=names)
        got = fusion_metrics(*(picture[:, ::-1] for picture in pictures), names=names)
        assert got == pytest.approx(want, rel=1e-9, abs=1e-9, nan_ok=True)
