"""The number grid of each group for given input moments: how much of its range to give up for a finer step.

AWQ's clip cuts both ends of a group at one magnitude (clip.py). Here each end is found for itself, and no weight is
changed: what lies beyond the grid is rounded to its end. That frees compensated rounding to make up for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from awqbench.quantization.moments import Moments
from awqbench.quantization.rounding import grid_between, round_groups_
from awqbench.quantization.sketch import Sketch, sketch

COMMON = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)
"""Shares of the range tried for both ends together, after which each end is tried a little further in and out."""
FEW_BITS = (*COMMON, 0.6, 0.5)
"""The same below four bits, where a finer step is worth more."""
SINGLE = (1.1, 0.95, 0.85)
_MOST_CORRELATED = 128  # channels
_RANK = 16  # directions of a stretch's Gram matrix: on the demo model the grids cost 0.7 to 1.4 % of the loss
_CHUNK_WEIGHTS = 1 << 19  # 2 MiB of float32 for each temporary


def fit_ranges(
    weight: Tensor, moments: Moments, bits: int, group_size: int, symmetric: bool = False
) -> tuple[Tensor, Tensor]:
    """Step and zero point of each group of `weight` [out, in] float32: float32 [out, groups, 1].

    A range's loss is the squared error of the group's part of the dot product for an input with these moments, by the
    strongest correlations of its channels. In large groups only channels of one stretch are taken to correlate, which
    bounds the work. Losses that are not finite keep the whole range.
    """
    groups = weight.view(weight.shape[0], -1, group_size)
    moment = sketch(moments.blocks(math.gcd(group_size, _MOST_CORRELATED)), _RANK)
    rows = max(1, _CHUNK_WEIGHTS // weight.shape[1])
    parts = [
        _best_grid(chunk.transpose(0, 1).contiguous(), moment, bits, symmetric) for chunk in torch.split(groups, rows)
    ]
    step, zero = (torch.cat(each, dim=1).transpose(0, 1) for each in zip(*parts, strict=True))
    return step, zero


def _best_grid(groups: Tensor, moment: Sketch, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """The same for groups [groups, rows, group_size] and moments of [stretches, size, size]: [groups, rows, 1]."""
    low, high = groups.amin(dim=-1, keepdim=True).clamp(max=0.0), groups.amax(dim=-1, keepdim=True).clamp(min=0.0)
    one = torch.ones_like(low)
    low_share, high_share, best = one, one, torch.full_like(low, torch.inf)
    error = torch.empty_like(groups)

    def consider(trials: Sequence[tuple[Tensor, Tensor]]) -> None:
        nonlocal low_share, high_share, best
        for shares in trials:
            step, zero = grid_between(low * shares[0], high * shares[1], bits, symmetric)
            loss = _energy(round_groups_(error.copy_(groups), step, zero, bits).sub_(groups), moment)
            better = loss < best
            best = torch.where(better, loss, best)
            low_share = torch.where(better, shares[0], low_share)
            high_share = torch.where(better, shares[1], high_share)

    consider([(share * one, share * one) for share in (COMMON if bits >= 4 else FEW_BITS)])
    if not symmetric:
        start = low_share
        consider([(start * share, high_share) for share in SINGLE])
        start = high_share
        consider([(low_share, start * share) for share in SINGLE])
    return grid_between(low * low_share, high * high_share, bits, symmetric)


def _energy(error: Tensor, moment: Sketch) -> Tensor:
    """Squared output errors [groups, rows, 1] of weight errors [groups, rows, group_size], which are overwritten."""
    groups, rows, _ = error.shape
    size = moment.rest.shape[-1]
    stretches = error.view(groups, rows, -1, size).transpose(1, 2).reshape(-1, rows, size)
    return moment.energy(stretches).view(groups, -1, rows).sum(dim=1).unsqueeze(-1)
