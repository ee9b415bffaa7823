"""4-bit codes as other kernels want them, from codes [n, k], scales and zero points [n, groups].

Facts from AutoAWQ's format and vLLM's marlin_utils.py and quant_utils.py (Apache-2.0).
"""

from __future__ import annotations

import torch
from torch import Tensor

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble i of an AWQ word holds this one of 8 neighbouring columns
PLAIN_ORDER = (0, 1, 2, 3, 4, 5, 6, 7)
# Marlin's order of scales and zero points within 64 columns, and of scales per channel within 32.
MARLIN_GROUPED = tuple(i + 8 * j for i in range(8) for j in range(8))
MARLIN_CHANNEL = tuple(2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25))


def pack_columns(values: Tensor, order: tuple[int, ...] = PLAIN_ORDER) -> Tensor:
    """uint8 0..15 [rows, columns] -> int32 [rows, columns / 8]; nibble i of a word holds column order[i] of its 8."""
    rows, columns = values.shape
    grouped = values.view(rows, columns // 8, 8).to(torch.int64)
    words = torch.zeros(rows, columns // 8, dtype=torch.int64, device=values.device)
    for nibble, column in enumerate(order):
        words |= grouped[:, :, column] << (4 * nibble)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def awq_columns(values: Tensor) -> Tensor:
    """uint8 [n, anything] -> AWQ words, int32 [anything, n / 8]."""
    return pack_columns(values.T.contiguous(), AWQ_ORDER)


def marlin_scales(scales: Tensor, per_channel: bool) -> Tensor:
    """[n, groups] -> [groups, n] in Marlin's order."""
    order = MARLIN_CHANNEL if per_channel else MARLIN_GROUPED
    across = scales.T.contiguous()
    return across.view(-1, len(order))[:, list(order)].reshape(across.shape).contiguous()


def marlin_zeros(zeros: Tensor) -> Tensor:
    """uint8 [n, groups] -> int32 [groups, n / 8] in Marlin's order, with the interleaving its dequantizer undoes."""
    across = zeros.T.contiguous()
    ordered = across.view(-1, 64)[:, list(MARLIN_GROUPED)].reshape(across.shape).contiguous()
    return pack_columns(ordered, AWQ_ORDER)
