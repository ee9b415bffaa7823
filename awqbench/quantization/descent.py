"""Coordinate descent on codes and steps: lower tr((Q - W) G (Q - W)^T) for the Gram matrix G, starting from any codes.

Each code moves to the grid point that is best with all others fixed (Behdin et al., "QuantEase", arXiv 2309.01885), and
each group's step to its least-squares value given the codes. Neither ever raises the loss of a row.

Weights, codes and errors are transposed, [in, out].
"""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.quantization.rounding import float16_step

_BLOCK = 64  # columns between which the gradient is updated one by one


def descend(
    weight: Tensor, gram: Tensor, codes: Tensor, step: Tensor, zero: Tensor, bits: int, sweeps: int
) -> tuple[Tensor, Tensor]:
    """Better codes [in, out], as floats, and steps [groups, out] for a transposed `weight` [in, out] float32.

    `gram` [in, in] must be positive definite; `zero` [groups, out] stays.
    """
    groups, out = step.shape
    offset = zero.repeat_interleave(weight.shape[0] // groups, dim=0)
    levels, step = codes - offset, step.clone()
    for _ in range(sweeps):
        error = (levels.view(groups, -1, out) * step.unsqueeze(1)).view_as(weight) - weight
        _refit_steps(error, gram, levels, step)
        _move_codes(error, gram, levels, step, zero, bits)
    return levels + offset, step


def _refit_steps(error: Tensor, gram: Tensor, levels: Tensor, step: Tensor) -> None:
    """Set each group's step in turn to its least-squares value, rounded to float16 as it is stored."""
    size = error.shape[0] // step.shape[0]
    for group in range(step.shape[0]):
        rows = slice(group * size, (group + 1) * size)
        level = levels[rows]
        slope = (level * (gram[rows] @ error)).sum(dim=0)
        curvature = (level * (gram[rows, rows] @ level)).sum(dim=0)
        change = float16_step(step[group] - slope / curvature).sub_(step[group])
        # Rounding may spoil a small gain; a group without a code off zero has no curvature.
        gain = change * (2 * slope + change * curvature)
        change = torch.where(gain < 0, change, 0.0)
        step[group] += change
        error[rows] += level * change


def _move_codes(error: Tensor, gram: Tensor, levels: Tensor, step: Tensor, zero: Tensor, bits: int) -> None:
    """Set each column's codes in turn to those that are best with all other columns as they are."""
    inputs = error.shape[0]
    size = inputs // step.shape[0]
    curvatures = gram.diagonal().tolist()
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        slope = gram[start:stop] @ error
        for column in range(start, stop):
            scale, offset, level = step[column // size], zero[column // size], levels[column]
            best = torch.addcdiv(level, slope[column - start], scale, value=-1 / curvatures[column])
            best.round_().add_(offset).clamp_(0, 2**bits - 1).sub_(offset)
            change = (best - level).mul_(scale)
            levels[column] = best
            error[column] += change
            slope.addr_(gram[column, start:stop], change)
