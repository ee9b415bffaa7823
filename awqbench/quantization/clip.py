"""Clip search: how far each group's largest weights may be cut so that the finer grid pays for it (AWQ)."""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.quantization.rounding import fake_quantize_groups_

GRID = 20
MAX_SHRINK = 0.5
_CHUNK_WEIGHTS = 1 << 22  # 16 MiB of float32 for each temporary


def clip_weight(weight: Tensor, grams: Tensor, bits: int, group_size: int, symmetric: bool = False) -> Tensor:
    """A float32 copy of `weight` [out, in] with each group clamped symmetrically at the bound that serves it best.

    Bounds tried: 1.00, 0.95 .. 0.55 of the group's largest magnitude. The loss of a bound is the squared error of the
    group's part of the dot product, summed over the calibration tokens; with the group's Gram matrix G, one of `grams`
    [groups, group_size, group_size], it is
    d G d^T for the weight difference d, so its cost does not grow with the tokens. A tie, and a loss that is not
    finite, keep the group as it is. Output channels go in chunks of whatever size bounds the memory.
    """
    out, inputs = weight.shape
    clipped = weight.detach().to(torch.float32, copy=True).view(out, -1, group_size).transpose(0, 1).contiguous()
    rows = max(1, _CHUNK_WEIGHTS // inputs)
    for start in range(0, out, rows):
        chunk = clipped[:, start : start + rows]
        bound = _best_bound(chunk, grams, bits, symmetric)
        chunk.clamp_(-bound, bound)
    return clipped.transpose(0, 1).reshape(out, inputs)


def _best_bound(groups: Tensor, grams: Tensor, bits: int, symmetric: bool) -> Tensor:
    """The clamp of each group, [groups, rows, 1], from weights [groups, rows, group_size]."""
    largest = groups.abs().amax(dim=-1, keepdim=True)
    best_bound = largest.clone()
    best_loss: Tensor | None = None
    for step in range(round(MAX_SHRINK * GRID)):
        bound = largest * (1 - step / GRID)
        error = fake_quantize_groups_(groups.clamp(-bound, bound), bits, symmetric).sub_(groups)
        loss = (torch.bmm(error, grams) * error).sum(dim=-1, keepdim=True)
        if best_loss is None:
            best_loss = loss
            continue
        better = loss < best_loss
        best_loss = torch.where(better, loss, best_loss)
        best_bound = torch.where(better, bound, best_bound)
    return best_bound
