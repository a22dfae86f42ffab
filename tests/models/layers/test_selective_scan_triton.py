"""The Triton kernels, in Triton's interpreter, against the plain recurrence in float64.

Whether Triton interprets is settled when it is imported, so all but one of these tests run in a
process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("triton", reason="Triton is not installed; it comes with PyTorch for CUDA")

from mmfusion.layers.selective_scan import selective_scan_reference

pytestmark = pytest.mark.torch

if os.environ.get("TRITON_INTERPRET") != "1":

    def test_in_the_interpreter():
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__],
            env={**os.environ, "TRITON_INTERPRET": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == 0, result.stdout
        assert "skipped" not in result.stdout

else:
    from hypothesis import given, settings
    from hypothesis import strategies as st
    from test_selective_scan import draw

    from mmfusion.layers import selective_scan_triton as module

    @pytest.fixture(autouse=True)
    def small_chunks(monkeypatch):
        monkeypatch.setattr(module, "CHUNK", 4)

    def compare(inputs, dtype, tolerance):
        """Values and all gradients; A and D stay float32."""
        given_ = [x.to(dtype if i not in {2, 5} else torch.float32) for i, x in enumerate(inputs)]
        ours = [x.clone().requires_grad_() for x in given_]
        theirs = [x.double().requires_grad_() for x in given_]
        y, expected = module.triton_selective_scan(*ours), selective_scan_reference(*theirs)
        assert y.dtype == dtype
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        y.backward(grad)
        expected.backward(grad.double())
        assert_near(y, expected, tolerance)
        for name, one, other in zip(("u", "step", "a", "b", "c", "d"), ours, theirs, strict=True):
            assert one.grad.dtype == one.dtype, name
            assert_near(one.grad, other.grad, tolerance)

    def assert_near(one, other, tolerance):
        assert torch.isfinite(one).all()
        scale = other.abs().max().clamp(min=1e-3)
        assert (one.double() - other).abs().max() <= tolerance * scale

    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(
        st.tuples(
            st.integers(0, 1000),
            st.integers(1, 2),  # images
            st.integers(1, 11),  # steps: up to three chunks, the last one partial
            st.integers(1, 2),  # directions
            st.integers(1, 5),  # channels
            st.integers(1, 5),  # states
        )
    )
    def test_equals_the_recurrence(shape):
        module.CHUNK = 4
        compare(draw(*shape), torch.float32, 1e-5)

    def test_many_channels_and_states_as_in_the_networks():
        compare(draw(0, 1, 6, 2, 40, 16), torch.float32, 1e-5)

    def test_half_precision_in_and_out():
        compare(draw(1, 1, 9, 2, 6, 4), torch.float16, 4e-3)

    @pytest.mark.parametrize("step_range", [(1e-6, 1e-3), (1.0, 200.0)])
    def test_hardly_any_decay_and_nearly_all(step_range):
        compare(draw(2, 1, 10, 1, 3, 2, *step_range), torch.float32, 1e-5)

    def test_the_scratch_of_states_is_used_again(monkeypatch):
        monkeypatch.setattr(module, "_SCRATCH_BYTES", 1)
        compare(draw(3, 1, 10, 1, 3, 2), torch.float32, 1e-5)

    def test_no_time_steps():
        inputs = [x.float().requires_grad_() for x in draw(4, 2, 0, 1, 3, 2)]
        y = module.triton_selective_scan(*inputs)
        assert y.shape == (2, 0, 1, 3)
        y.sum().backward()
        assert not inputs[2].grad.any()

    def test_inputs_that_are_not_contiguous():
        inputs = [x.float() for x in draw(5, 1, 5, 2, 3, 2)]
        turned = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in inputs]
        y = module.triton_selective_scan(*turned)
        assert torch.equal(y, module.triton_selective_scan(*inputs))

    @pytest.mark.parametrize("shape", [(40000, 1, 2, 0), (2**16, 2**15, 1, 0)])
    def test_more_than_the_kernels_count_is_refused(shape):
        none = torch.empty(shape)
        with pytest.raises(ValueError, match=f"got {shape[0]} images of {shape[2]} directions"):
            module.triton_selective_scan(none, none, none, none, none, none)
