"""The key names of published EfficientMFD checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from mmfusion.efficientmfd.network import EfficientMFD

# Never read by the forward pass: tables derived from the noise schedule, and a filter.
_DERIVED = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "criterion_fuse.lap.gauss_kernel.weight",
    }
)
# The published network holds this layer and never runs it.
_DEAD_LAYER = "fusion.block1.conv_module_add."


def _from(pattern: str, replacement: str, shift: int) -> Callable[[str], str]:
    """Rename what matches; ``{n}`` in the replacement is the first group plus ``shift``."""

    def rename(key: str) -> str:
        return re.sub(pattern, lambda m: m.expand(replacement.format(n=int(m[1]) + shift)), key)

    return rename


def _to(pattern: str, replacement: str) -> Callable[[str], str]:
    return lambda key: re.sub(pattern, replacement, key)


# Applied in order to each published key.
_RENAMES = (
    _from(r"^backbone\.fpn_lateral(\d)\.", "features.lateral.{n}.", -2),
    _from(r"^backbone\.fpn_output(\d)\.", "features.output.{n}.", -2),
    _to(r"^backbone\.bottom_up\.stem\.", "features.body."),
    _from(r"^backbone\.bottom_up\.res(\d)\.", "features.body.layer{n}.", -1),
    _to(r"\.conv(\d)\.norm\.", r".bn\1."),
    _to(r"\.shortcut\.norm\.", ".downsample.1."),
    _to(r"\.shortcut\.", ".downsample.0."),
    _to(r"^fusion\.block1\.block1\.", "fusion.pixel."),
    _to(r"\.conv1_1\.", ".trunk.0."),
    _to(r"\.conv1_2\.", ".trunk.2."),
    _to(r"\.conv1_3\.", ".trunk.4."),
    _to(r"\.conv1_0_00\.", ".left."),
    _to(r"\.conv1_0_01\.", ".right."),
    _from(r"^fusion\.block1\.att(\d)\.conv\.", "fusion.regions.masks.{n}.", -1),
    _to(r"(masks\.\d)\.convs\.", r"\1.views."),
    _to(r"(masks\.\d)\.fc\.", r"\1.weigh."),
    _to(r"^fusion\.block1\.conv2\.", "fusion.regions.merge."),
    _to(r"^fusion\.block1\.conv_module_act\.", "fusion.gate_unit."),
    _to(r"^fusion\.block1\.conv_module\.", "fusion.pixel_unit."),
    _to(r"_unit\.conv\.", "_unit.0."),
    _to(r"_unit\.bn\.", "_unit.1."),
    _to(r"^fusion\.block2\.", "fusion.reconstruct."),
    _to(r"^head\.time_mlp\.1\.", "head.time.mlp.0."),
    _to(r"^head\.time_mlp\.3\.", "head.time.mlp.2."),
    _to(r"^head\.head_series\.", "head.stages."),
    _to(r"\.self_attn\.in_proj_", ".attention.in_proj."),
    _to(r"\.self_attn\.out_proj\.", ".attention.out_proj."),
    _to(r"\.inst_interact\.dynamic_layer\.", ".interaction.dynamic."),
    _to(r"\.inst_interact\.out_layer\.", ".interaction.out."),
    _to(r"\.inst_interact\.", ".interaction."),
    _to(r"\.linear1\.", ".feed_forward.0."),
    _to(r"\.linear2\.", ".feed_forward.2."),
    _to(r"\.block_time_mlp\.", ".modulation."),
    _to(r"\.cls_module\.", ".classify."),
    _to(r"\.reg_module\.", ".regress."),
)


def to_own_names(
    published: Mapping[str, Tensor], model: EfficientMFD
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename published keys to those of ``model``.

    The weights of DiffusionDet, trained on COCO, have the same names as far as they go: a start
    for training. Class layers for another number of classes than the model's are of no use.

    Args:
        published: weights of EfficientMFD or DiffusionDet with ResNet-50, by published name.
        model: of the same shape.

    Returns:
        Tensors by own name, unknown keys left as they are; and the published keys that are of
        no use.
    """
    config = model.config
    last_layers = {
        r"class_logits": f"classify.{3 * config.class_layers}",
        r"bboxes_delta": f"regress.{3 * config.box_layers}",
    }
    renamed: dict[str, Tensor] = {}
    unused: list[str] = []
    for key, tensor in published.items():
        other_classes = ".class_logits." in key and tensor.shape[:1] != (len(config.classes),)
        if key in _DERIVED or key.startswith(_DEAD_LAYER) or other_classes:
            unused.append(key)
            continue
        name = key
        for rename in _RENAMES:
            name = rename(name)
        for layer, own_layer in last_layers.items():
            name = name.replace(f".{layer}.", f".{own_layer}.")
        renamed[name] = tensor
    return renamed, unused
