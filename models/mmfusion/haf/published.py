"""The key names of published HAF checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from mmfusion.haf.backbone import own_swin_name
from mmfusion.haf.network import HAF

# Derived tables, and layers whose result the published forward pass throws away or never asks for.
_UNUSED = re.compile(
    r"relative_position_index$|\.attn_mask$|\.num_batches_tracked$"
    r"|^(rgb|depth)_swin\.(layers\.3\.|norm\.)"
    r"|^CA_SA_Enhance_\d\.proj_out\.|^conv(43|32|21)\."
)


def _counted(name: str, first: int = 1) -> Callable[[re.Match[str]], str]:
    """Name of a numbered layer in a list, the published number of the first being ``first``."""
    return lambda match: f"{name}.{int(match[1]) - first}."


_RENAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^(rgb|depth)_swin\.(.*)$", lambda match: f"{match[1]}_backbone.{own_swin_name(match[2])}"),
    (r"^dwc(\d)\.", _counted("neck.reduce")),
    (r"^dwcon_(\d)\.", _counted("neck.merge")),
    (r"^CA_SA_Enhance_(\d)\.", _counted("fusion")),
    (r"\.fft_attn\.freq_response$", ".correlation.response"),
    (r"\.alpha_aux$", ".auxiliary_share"),
    (r"\.alpha_main$", ".primary_share"),
    (r"\.gate_mlp\.", ".gate."),
    (r"\.proj_out_cat\.", ".project."),
    (
        r"^deconv_layer_(\d)\.(.*)$",
        lambda match: f"decoder.upscale.{int(match[1]) - 1}.0.{match[2]}",
    ),
    (r"^FA_Block(\d)\.", _counted("decoder.refine", first=2)),
    (r"(^decoder\.refine\.\d)\.gamma$", r"\1.scale"),
    (r"(^decoder\.refine\.\d)\.dwconv\.", r"\1.spread."),
    (r"(^decoder\.refine\.\d)\.pwconv1\.", r"\1.expand."),
    (r"(^decoder\.refine\.\d)\.pwconv2\.", r"\1.contract."),
    (r"^predict_layer_1\.([01])\.", r"heads.saliency.0.\1."),
    (r"^predict_layer_1\.4\.", "heads.saliency.2."),
    (r"^predtrans(\d)\.", _counted("heads.side", first=2)),
]


def to_own_names(
    published: Mapping[str, Tensor], model: HAF
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename published keys to those of ``model``, and cut off what no forward pass reads.

    Weights go by role: those of the published auxiliary stream (RGB) to the auxiliary stream of
    the model. Shapes are not checked; a tensor that cannot be cut is handed on as it is.

    Returns:
        Tensors by own name, unknown keys left as they are; and the published keys that are of
        no use.
    """
    own = model.state_dict()
    renamed: dict[str, Tensor] = {}
    unused = []
    for key, tensor in published.items():
        if _UNUSED.search(key):
            unused.append(key)
            continue
        name = key
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        parts = _parts(name, tensor, own)
        renamed.update(parts if parts.keys() <= own.keys() else {key: tensor})
    return renamed, unused


def _parts(name: str, tensor: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the model that a published one holds, by own name."""
    block, _, leaf = name.rpartition(".to_qkv_")
    if leaf == "rgb.weight":
        rows = _rows(own, f"{block}.query.weight")
        if len(tensor.shape) == 2 and tensor.shape[0] in {2 * rows, 3 * rows}:
            query, key = tensor[:rows], tensor[rows : 2 * rows]
            return {
                f"{block}.query.weight": query[..., None, None],
                f"{block}.auxiliary_key.weight": key[..., None, None],
            }
        return {f"{block}.query.weight": tensor}
    if leaf == "depth.weight":
        name = f"{block}.primary_key.weight"
        rows = _rows(own, name)
        if tensor.dim() and tensor.shape[0] == 3 * rows:
            tensor = tensor[rows : 2 * rows]
    elif name.endswith(".gate.0.weight") and name in own and tensor.dim() == 2:
        seen = own[name].shape[1]
        if tensor.shape[1] == 2 * seen:  # momentum, zero if there is one step
            tensor = tensor[:, :seen]
    elif name.endswith(".response") and tensor.shape[:3] == (1, 1, 1):
        tensor = tensor[0, 0, 0]
    if name in own and own[name].dim() == 4 and tensor.dim() == 2:
        tensor = tensor[..., None, None]  # a map per token is a 1x1 convolution
    return {name: tensor}


def _rows(own: Mapping[str, Tensor], name: str) -> int:
    return own[name].shape[0] if name in own else 0
