"""One picture of two, given the log-odds of trusting infrared rather than visible.

Not published; see `S4FusionConfig.blend`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmfusion.layers.scaling import smooth
from mmfusion.layers.warmth import warmth_of

_BLOCK = 16  # pixels; what is lost in averages over so many is detail, whose contrast they tell
_NOISE = 0.002  # contrast, in units of white, that says nothing
_DECISION = 1.5  # details that are averaged cancel, so they are chosen more sharply than the rest
_GAIN = 0.2  # more contrast for details that one picture alone has
_RESERVE = 1.5  # log-odds by which what is not warm is brightened less, and what is warm more
_LEAD = 4.0  # how soon a picture counts as the one that has them, by the log of contrasts


def blend(
    log_odds: Tensor,
    infrared: Tensor,
    visible: Tensor,
    detail: float,
    seen: Tensor | None = None,
) -> Tensor:
    """Blend smooth parts by smooth log-odds, details by these and their own contrast.

    So a warm surface can be shown as bright as it is with the texture that only the visible
    picture has. Such texture gains a fifth in contrast; two equal pictures stay as they are.

    Where infrared is the brighter one, log-odds of smooth parts are lowered by 1.5 for what does
    not stand out as warm and raised by as much for what does. In the dark, networks are undecided
    about surroundings, and half of the difference would grey them; 0.18 of it is left.

    Args:
        log_odds: of infrared, (N, 1, H, W).
        infrared: (N, 1, H, W) in [0, 1].
        visible: same shape.
        detail: how much e times the contrast counts, in log-odds; 0 blends all
            by the log-odds as they are, pixel by pixel.
        seen: where infrared is a thermal picture, see `warmth_of`.

    Returns:
        (N, 1, H, W); may lie slightly outside of [0, 1].
    """
    if not detail:
        return visible + torch.sigmoid(log_odds) * (infrared - visible)
    log_odds = smooth(log_odds, _BLOCK)  # whose own edges would show where both pictures are smooth
    smooth_infrared, smooth_visible = smooth(infrared, _BLOCK), smooth(visible, _BLOCK)
    reserve = _RESERVE * (1 - 2 * smooth(warmth_of(infrared, seen), _BLOCK))
    # No edge shows where this switches: the two are equal there.
    brightens = (smooth_infrared > smooth_visible).to(reserve)
    weight = torch.sigmoid(log_odds - reserve * brightens)
    fine_infrared, fine_visible = infrared - smooth_infrared, visible - smooth_visible
    richness = _log_contrast(fine_infrared) - _log_contrast(fine_visible)
    fine_weight = torch.sigmoid(_DECISION * (log_odds + detail * richness))
    gain = 1 + _GAIN * torch.tanh(_LEAD * richness.abs())
    return (
        smooth_visible
        + weight * (smooth_infrared - smooth_visible)
        + gain * (fine_visible + fine_weight * (fine_infrared - fine_visible))
    )


def _log_contrast(fine: Tensor) -> Tensor:
    return (smooth(fine.abs(), _BLOCK) + _NOISE).log()
