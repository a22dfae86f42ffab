"""EfficientMFD with fixed shapes: equal to the network, and a graph that any engine takes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("timm", reason="timm is not installed")

from mmfusion.efficientmfd.config import PRESETS, EfficientMFDConfig
from mmfusion.efficientmfd.deploy import EfficientMFDDeploy
from mmfusion.efficientmfd.diffusion import standard_noise
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.efficientmfd.roi_align import pool_by_grid_sample
from mmfusion.errors import ModelError

pytestmark = [pytest.mark.torch, pytest.mark.export]

SIZE = (70, 90)  # not a multiple of 32
NAMES = ["fusion_weights", "logits", "boxes"]
# Whose output shapes depend on data, or that engines lack.
UNWANTED = {
    "NonZero", "ScatterND", "ScatterElements", "GatherND", "Log", "Floor", "DFT", "Loop", "If",
    "Scan", "TopK", "NonMaxSuppression", "Unique", "Compress", "Shape", "RandomNormal",
    "RandomNormalLike", "BatchNormalization",
}  # fmt: skip


@pytest.fixture(scope="module", params=["frozen", "trained"])
def model(request):
    """With batch norm that is not the identity: frozen or trained."""
    torch.manual_seed(0)
    frozen = request.param == "frozen"
    config = EfficientMFDConfig(
        backbone="resnet10t" if frozen else "mobilenetv3_small_050",
        frozen_start=frozen,
        channels=16,
        pixel_channels=4,
        fusion_stride=1 if frozen else 2,
        proposals=20,
        stages=2,
        heads=2,
        feed_forward=32,
        dynamic_channels=8,
    )
    network = EfficientMFD(config).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.8, 1.2)
    for stage in network.head.stages:
        torch.nn.init.constant_(stage.classify[-1].bias, -1.0)
    return network


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return {"visible": torch.rand(1, 3, *SIZE) * 255, "infrared": torch.rand(1, 1, *SIZE) * 255}


def test_one_step_equals_the_network(model, images):
    deploy = EfficientMFDDeploy(model, *SIZE)
    with torch.inference_mode():
        output, expected = deploy(**images), model(**images)
    torch.testing.assert_close(output.fusion_weights, expected.fusion_weights)
    torch.testing.assert_close(output.logits, expected.logits[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.boxes, expected.boxes[-1], atol=1e-2, rtol=1e-4)


def test_several_steps_and_given_noise_equal_the_network(model, images):
    noises = standard_noise(5, 20, 7)
    deploy = EfficientMFDDeploy(model, *SIZE, steps=3)
    with torch.inference_mode():
        output = deploy(**images, noise=noises)
        logits, boxes = model.sample(model.pyramid(**images), SIZE, noises[:, None], 3)
        seeded = EfficientMFDDeploy(model, *SIZE, 3, seed=7)(**images)
    assert output.boxes.shape == (1, 60, 4)
    torch.testing.assert_close(output.logits, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.boxes, boxes, atol=1e-2, rtol=1e-4)
    assert torch.equal(output.boxes, seeded.boxes)


def test_the_network_is_left_as_it_was(model):
    model.train()
    EfficientMFDDeploy(model, *SIZE)
    assert model.training
    model.eval()


def test_another_size_is_refused(model):
    deploy = EfficientMFDDeploy(model, *SIZE)
    with pytest.raises(ModelError, match=r"does not fit a network made for \(1, 3, 70, 90\)"):
        deploy(torch.rand(1, 3, 70, 91), torch.rand(1, 1, 70, 91))


@pytest.fixture(scope="module")
def deploy(model):
    # Two steps where the unrolling is to be seen, one to be quick.
    return EfficientMFDDeploy(model, *SIZE, steps=2 if model.config.frozen_start else 1)


@pytest.fixture(scope="module")
def exported(deploy, images):
    pytest.importorskip("onnxscript")
    from mmfusion.export import onnx_model

    return onnx_model(deploy, images, NAMES)


def assert_equal_in_onnxruntime(exported, deploy, images):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(exported.SerializeToString())
    weights, logits, boxes = session.run(NAMES, {k: v.numpy() for k, v in images.items()})
    with torch.inference_mode():
        expected = deploy(**images)
    np.testing.assert_allclose(weights, expected.fusion_weights, atol=1e-5)
    # A box at the border of a level may take another one: nearly all must agree.
    logit_errors = np.abs(logits - expected.logits.numpy()).max(axis=-1)
    box_errors = np.abs(boxes - expected.boxes.numpy()).max(axis=-1)
    assert (logit_errors < 1e-3).mean() >= 0.95
    assert (box_errors < 0.1).mean() >= 0.95


def assert_fit_for_engines(exported):
    assert not {node.op_type for node in exported.graph.node} & UNWANTED
    assert all(node.domain == "" for node in exported.graph.node)
    for value in (*exported.graph.output, *exported.graph.value_info):
        dimensions = value.type.tensor_type.shape.dim
        assert all(dimension.HasField("dim_value") for dimension in dimensions)


def operators_behind(graph, outputs):
    """Operators that some outputs depend on."""
    producers = {name: node for node in graph.node for name in node.output}
    pending, seen, operators = list(outputs), set(), set()
    while pending:
        node = producers.get(pending.pop())
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            operators.add(node.op_type)
            pending += node.input
    return operators


def test_export_runs_as_in_torch(exported, deploy, images):
    assert_equal_in_onnxruntime(exported, deploy, images)


def test_export_has_no_shape_that_depends_on_data(exported):
    assert_fit_for_engines(exported)


def test_export_shares_weights_between_steps(exported, model):
    held = sum(parameter.numel() for parameter in model.parameters())
    stored = sum(int(np.prod(tensor.dims)) for tensor in exported.graph.initializer)
    assert stored < 1.1 * held


def test_export_folds_batch_norm(exported):
    graph = exported.graph
    constants = {tensor.name for tensor in graph.initializer}
    convolved = {name for node in graph.node if node.op_type == "Conv" for name in node.output}
    scalings = [
        node.name
        for node in graph.node
        if node.op_type == "Mul" and convolved & set(node.input) and constants & set(node.input)
    ]
    assert scalings == []


def test_fusion_and_detection_do_not_depend_on_each_other(exported):
    fusion = operators_behind(exported.graph, ["fusion_weights"])
    detection = operators_behind(exported.graph, ["logits", "boxes"])
    assert not fusion & {"RoiAlign", "LayerNormalization", "Exp"}
    assert not detection & {"Sigmoid"}
    assert "RoiAlign" in detection
    assert "Sigmoid" in fusion


@pytest.mark.parametrize("model", ["frozen"], indirect=True)
def test_export_without_roi_align(model, images):
    pytest.importorskip("onnxscript")
    from mmfusion.export import onnx_model

    deploy = EfficientMFDDeploy(model, *SIZE, pool=pool_by_grid_sample)
    exported = onnx_model(deploy, images, NAMES)
    operators = {node.op_type for node in exported.graph.node}
    assert "GridSample" in operators
    assert "RoiAlign" not in operators
    assert_fit_for_engines(exported)
    assert_equal_in_onnxruntime(exported, deploy, images)


def test_the_lite_preset_exports(images):
    """The preset with one stage, to be quick: its backbone and colours are what is its own."""
    pytest.importorskip("onnxscript")
    from mmfusion.export import onnx_model

    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS["efficientmfd_lite0"], stages=1)
    deploy = EfficientMFDDeploy(EfficientMFD(config).eval(), *SIZE)
    exported = onnx_model(deploy, images, NAMES)
    assert_fit_for_engines(exported)
    assert_equal_in_onnxruntime(exported, deploy, images)
