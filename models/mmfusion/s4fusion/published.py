"""The key names of published S4Fusion checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmfusion.s4fusion.network import S4Fusion

# Applied in order to each published key; together they rename every one of the 304.
_RENAMES = [
    (r"^vmunet\.", ""),
    (r"^patch_embed_x\.", "embed_infrared."),
    (r"^patch_embed_y\.", "embed_visible."),
    (r"^layers_x\.", "encoder_infrared."),
    (r"^layers_y\.", "encoder_visible."),
    (r"^layers_up\.", "decoder."),
    (r"^fusion_layers\.(\d+)\.layers\.(\d+)\.mark_proj$", r"fusion.\1.blocks.\2.mark"),
    (r"^fusion_layers\.(\d+)\.layers\.(\d+)\.", r"fusion.\1.blocks.\2.space."),
    (r"\.ln_1\.", ".norm."),
    (r"\.self_attention\.", ".ss2d."),
    (r"\.downsample\.", ".merge."),
    (r"\.upsample\.expand\.", ".expand.linear."),
    (r"\.upsample\.norm\.", ".expand.norm."),
    (r"\.conv2d\.", ".conv."),
    (r"\.x_proj_weight$", ".projections.0"),
    (r"\.y_proj_weight$", ".projections.1"),
    (r"\.dt_projs_weight$", ".step_weight"),
    (r"\.dt_projs_bias$", ".step_bias"),
    (r"\.A_logs$", ".log_a"),
    (r"\.Ds$", ".skip"),
    (r"^final_up\.norm\.", "tail.unused_norm."),
    (r"^final_up\.", "tail."),
    (r"^final_conv\.", "tail.conv."),
]


def to_own_names(
    published: Mapping[str, Tensor], model: S4Fusion
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename published keys to those of ``model``.

    Returns:
        Tensors by own name, unknown keys left as they are; and the published keys that are of
        no use: none here, as the layers that never run are held for completeness.
    """
    own = model.state_dict()
    renamed = {}
    for key, published_tensor in published.items():
        name, tensor = key, published_tensor
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        flat = name in own and name.endswith((".log_a", ".skip"))  # directions before channels
        if flat and tensor.numel() == own[name].numel():
            tensor = tensor.reshape(own[name].shape)
        renamed[name] = tensor
    return renamed, []
