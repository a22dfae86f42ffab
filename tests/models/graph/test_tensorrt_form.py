"""The form that torch_tensorrt takes gives the same, without what it does not take."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.nn import functional

from mmfusion.graph.tensorrt_form import TensorRTForm
from mmfusion.layers.scaling import shrink

pytestmark = pytest.mark.torch


class Small(torch.nn.Module):
    """Each operator that is replaced, on a picture of bytes."""

    def forward(self, picture, numbers):
        best = numbers.flatten().topk(3)
        middle = picture[..., 0].float()
        bytes_again = (middle * 0.7 + 0.4).to(torch.uint8)
        return {
            "picture": torch.where(picture[..., 1] > 100, picture[..., 0], bytes_again),
            "small": shrink(middle[None, None], 2),
            "overlapping": functional.avg_pool2d(middle[None, None], 3, 1, 1),
            "values": best.values,
            "index": best.indices.to(torch.int32),
            "range": torch.stack((best.values[0].clamp(min=0.5), best.values[1] / 2)),
            "rows": torch.stack((numbers[0], numbers[1]), dim=1),
            "finite": (numbers - numbers == 0).all(dim=1, keepdim=True),
        }


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (4, 7)])
def test_the_form_computes_the_same(size):
    torch.manual_seed(0)
    inputs = {
        "picture": torch.randint(0, 256, (*size, 2), dtype=torch.uint8),
        "numbers": torch.randn(4, 5),
    }
    inputs["numbers"][2, 1] = torch.inf
    expected = Small()(**inputs)
    dtypes = {name: tensor.dtype for name, tensor in expected.items()}
    form = TensorRTForm(torch.export.export(Small(), (), kwargs=inputs), dtypes)
    program = torch.export.export(form, (), kwargs=inputs)
    given = program.module()(**inputs)
    assert list(given) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, msg=name)
    for node in program.graph.nodes:
        target, value = str(node.target), node.meta.get("val")
        assert target != "aten.all.dim"
        if target == "aten.stack.default":
            assert node.args[0][0].meta["val"].dim() > 0
        if target == "aten.topk.default":
            assert node.args[0].meta["val"].dim() > 1
        if target == "aten.avg_pool2d.default":
            assert True not in node.args  # no ceil_mode
        if isinstance(value, torch.Tensor) and value.dtype == torch.uint8:
            assert node.name in {"picture", *program.graph_signature.user_outputs}


class Operator(torch.nn.Module):
    """One operator with its arguments as they are."""

    def __init__(self, name, *arguments):
        super().__init__()
        self.operator, self.arguments = getattr(torch.ops.aten, name), arguments

    def forward(self, given):
        results = self.operator(given, *self.arguments)
        results = results if isinstance(results, tuple) else (results,)
        return {str(index): result for index, result in enumerate(results)}


NUMBERS = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
NUMBERS[:, 2:4], NUMBERS[3, 1] = 0, torch.nan
BYTES = (NUMBERS.nan_to_num() * 99).to(torch.uint8)


@pytest.mark.parametrize(
    ("name", "arguments", "given"),
    [
        ("topk", (3, 0), BYTES[0]),
        ("topk", (2, -1, False), NUMBERS[0]),
        ("topk", (2, 0, False, True), NUMBERS),
        ("topk", (1,), NUMBERS[0, 0]),
        ("all", (0,), BYTES),
        ("all", (1, True), BYTES),
        ("all", (0,), NUMBERS),
        ("all", (0,), NUMBERS > 0),
        ("all", (0,), BYTES.int()),
        ("avg_pool2d", ([2],), NUMBERS[None, None]),
        ("avg_pool2d", ([2], [2], [0], True), NUMBERS[None, None]),
        ("avg_pool2d", ([2, 3], [], [0, 0], True), NUMBERS.expand(2, 3, 5, 7)),
        ("avg_pool2d", ([2, 3], [2, 3], [0, 0], True, False), NUMBERS[None, None]),
        ("avg_pool2d", ([2, 2], [], [0, 0], True), NUMBERS.expand(2, 5, 7)),
        ("avg_pool2d", ([2, 2], [], [0, 0], True, True, 3), NUMBERS[None, None]),
        ("avg_pool2d", ([2, 2], [1, 2], [0, 0], True), NUMBERS[None, None]),
        ("avg_pool2d", ([3, 3], [], [1, 0], True, False), NUMBERS[None, None]),
    ],
)
def test_whatever_the_arguments_mean_they_mean_the_same(name, arguments, given):
    module = Operator(name, *arguments)
    expected = module(given)
    dtypes = {key: tensor.dtype for key, tensor in expected.items()}
    form = TensorRTForm(torch.export.export(module, (given,)), dtypes)
    for key, tensor in form(given=given).items():
        torch.testing.assert_close(tensor, expected[key], equal_nan=True)
