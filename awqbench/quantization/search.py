"""The scale search of AWQ: which power of the activation magnitude to scale a group's input channels by.

Lin et al., "AWQ: Activation-aware Weight Quantization", section 3.2 (arXiv 2306.00978).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from awqbench.quantization.rounding import fake_quantize_groups_

GRID = 20
_FLOOR = 1e-4

Loss = Callable[[list[Tensor]], float]
"""Judges trial weights, one [out, in] per linear of the group, by what they do to the group's outputs."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """The outcome for one group: `scale` [in] float32, and the loss at ratio 0 (no scaling) and at the chosen one."""

    scale: Tensor
    ratio: float
    loss_before: float
    loss: float


def scale_for(magnitude: Tensor, ratio: float) -> Tensor:
    """magnitude ** ratio, [in] float32, balanced around 1; channels where that is not finite are left alone."""
    scale = magnitude.float().pow(ratio).clamp(min=_FLOOR)
    scale = scale / (scale.max() * scale.min()).sqrt()
    return torch.where(scale.isfinite(), scale, 1.0)


def trial_weight(weight: Tensor, scale: Tensor, bits: int, group_size: int) -> Tensor:
    """What `weight` [out, in] becomes when scaled, rounded and unscaled: float32."""
    scaled = weight.float() * scale
    fake_quantize_groups_(scaled.view(weight.shape[0], -1, group_size), bits)
    return scaled.div_(scale)


def search_scale(weights: list[Tensor], magnitude: Tensor, loss: Loss, bits: int, group_size: int) -> Scaling | None:
    """Try ratios 0, 1/20 .. 19/20 on the group's weights and keep the one with the smallest loss.

    `magnitude` [in] is the mean absolute activation of each input channel. Returns None when no trial's loss is finite.
    """

    def trial(ratio: float) -> list[Tensor]:
        scale = scale_for(magnitude, ratio)
        return [trial_weight(weight, scale, bits, group_size) for weight in weights]

    losses = {ratio: loss(trial(ratio)) for ratio in (step / GRID for step in range(GRID))}
    best = min(losses, key=lambda ratio: _or_infinity(losses[ratio]))
    if not math.isfinite(losses[best]):
        return None
    return Scaling(scale_for(magnitude, best), best, losses[0.0], losses[best])


def _or_infinity(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
