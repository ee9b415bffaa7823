"""The scale search of AWQ: which power of the activation magnitude to scale a group's input channels by.

Lin et al., "AWQ: Activation-aware Weight Quantization", section 3.2 (arXiv 2306.00978).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from awqbench.quantization.moments import Moments
from awqbench.quantization.rounding import fake_quantize_groups_

GRID = 20
RATIOS = tuple(step / GRID for step in range(GRID))
FINALISTS = 2
SAMPLED_ROWS = 256
_FLOOR = 1e-4
_CHUNK_WEIGHTS = 1 << 18  # 1 MiB of float32: a trial's passes over a chunk stay in the cache

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


def trial_weight(weight: Tensor, scale: Tensor, bits: int, group_size: int, symmetric: bool = False) -> Tensor:
    """What `weight` [out, in] becomes when scaled, rounded and unscaled: float32."""
    scaled = weight.float() * scale
    fake_quantize_groups_(scaled.view(weight.shape[0], -1, group_size), bits, symmetric)
    return scaled.div_(scale)


def search_scale(
    weights: Sequence[Tensor],
    magnitude: Tensor,
    loss: Loss,
    bits: int,
    group_size: int,
    symmetric: bool = False,
    ratios: Sequence[float] = RATIOS,
) -> Scaling | None:
    """Try ratios, by default 0, 1/20 .. 19/20, on the group's weights and keep the one with the smallest loss.

    `magnitude` [in] is the mean absolute activation of each input channel; `ratios` must hold 0. Returns None when no
    trial's loss is finite.
    """

    def trial(ratio: float) -> list[Tensor]:
        scale = scale_for(magnitude, ratio)
        return [trial_weight(weight, scale, bits, group_size, symmetric) for weight in weights]

    losses = {ratio: loss(trial(ratio)) for ratio in ratios}
    best = min(losses, key=lambda ratio: _or_infinity(losses[ratio]))
    if not math.isfinite(losses[best]):
        return None
    return Scaling(scale_for(magnitude, best), best, losses[0.0], losses[best])


def finalists(
    weights: Sequence[Tensor],
    magnitude: Tensor,
    moments: Sequence[Moments],
    bits: int,
    group_size: int,
    symmetric: bool = False,
) -> list[float]:
    """The few ratios that look best by the diagonals of the Gram matrices, and 0: those worth an exact look.

    `moments` are those of each linear's input.
    """
    total = dict.fromkeys(RATIOS, 0.0)
    for weight, moment in zip(weights, moments, strict=True):
        losses = diagonal_losses(sampled(weight), magnitude, moment.gram.diagonal(), bits, group_size, symmetric)
        for ratio, value in losses.items():
            total[ratio] += value
    return sorted({0.0, *sorted(RATIOS, key=lambda ratio: _or_infinity(total[ratio]))[:FINALISTS]})


def sampled(weight: Tensor) -> Tensor:
    """At most `SAMPLED_ROWS` evenly spaced rows of a weight [out, in], in float32: its columns' errors average out."""
    return weight[:: -(-weight.shape[0] // SAMPLED_ROWS)].float()


def diagonal_losses(
    weight: Tensor, magnitude: Tensor, energy: Tensor, bits: int, group_size: int, symmetric: bool = False
) -> dict[float, float]:
    """Squared output error of `weight` [out, in] float32 at each ratio, as if its input channels were uncorrelated.

    `energy` [in] is the sum of squares of each input channel.
    """
    scales = {ratio: scale_for(magnitude, ratio) for ratio in RATIOS}
    columns = {ratio: energy.new_zeros(weight.shape[1]) for ratio in RATIOS}
    rows = max(1, _CHUNK_WEIGHTS // weight.shape[1])
    for chunk in torch.split(weight, rows):
        scaled, error = torch.empty_like(chunk), torch.empty_like(chunk)
        for ratio, scale in scales.items():
            error.copy_(torch.mul(chunk, scale, out=scaled))
            fake_quantize_groups_(error.view(len(chunk), -1, group_size), bits, symmetric)
            columns[ratio] += error.sub_(scaled).square_().sum(dim=0)
    return {ratio: float((columns[ratio] * energy / scales[ratio].square()).sum()) for ratio in RATIOS}


def _or_infinity(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
