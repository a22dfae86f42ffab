"""Weights in the layouts of the published checkpoints, by our own modules' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfusion.errors import ModelError
from mmfusion.s4fusion import S4Fusion

if TYPE_CHECKING:
    from torch import nn

# Applied in order to each published key; together they rename every one of the 304.
_S4FUSION_RENAMES = [
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


def load_published(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load weights in the published layout into ``model``.

    Args:
        model: from `create_model`, of the size the weights were made for.
        state_dict: published keys to tensors or arrays; a checkpoint's wrapper
            ``{"model": state_dict}`` is accepted too.

    Raises:
        ModelError: if the model has no published layout, or keys or shapes do not fit;
            nothing is loaded then.
    """
    import torch  # noqa: PLC0415 (heavy)

    if not isinstance(model, S4Fusion):
        raise ModelError(f"{type(model).__name__} has no published checkpoint layout")
    wrapped = state_dict.get("model")
    if isinstance(wrapped, Mapping):
        state_dict = wrapped
    own = model.state_dict()
    renamed = {}
    for key, value in state_dict.items():
        name = _rename(key)
        tensor = torch.as_tensor(np.asarray(value) if isinstance(value, np.generic) else value)
        if name in own and name.endswith((".log_a", ".skip")):
            tensor = tensor.reshape(own[name].shape)  # published flat, directions before channels
        renamed[name] = tensor
    problems = [f"missing {key}" for key in own.keys() - renamed.keys()]
    problems += [f"unexpected {key}" for key in renamed.keys() - own.keys()]
    problems += [
        f"{key} is {tuple(renamed[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own.keys() & renamed.keys()
        if renamed[key].shape != own[key].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:3])
        raise ModelError(
            f"these weights are not a published S4Fusion checkpoint for this model: {shown}"
            f"{f' and {len(problems) - 3} more' if len(problems) > 3 else ''}"
        )
    model.load_state_dict(renamed)


def _rename(key: str) -> str:
    for pattern, replacement in _S4FUSION_RENAMES:
        key = re.sub(pattern, replacement, key)
    return key
