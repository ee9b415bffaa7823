"""4-bit codes as other kernels want them, from codes [n, k], scales and zero points [n, groups].

Facts from AutoAWQ's format and vLLM's marlin_utils.py and quant_utils.py (Apache-2.0).
"""

from __future__ import annotations

from torch import Tensor

from awqbench.formats.autoawq import pack_words

PLAIN_ORDER = (0, 1, 2, 3, 4, 5, 6, 7)
# Marlin's order of scales and zero points within 64 columns, and of scales per channel within 32.
MARLIN_GROUPED = tuple(i + 8 * j for i in range(8) for j in range(8))
MARLIN_CHANNEL = tuple(2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25))


def plain_columns(values: Tensor) -> Tensor:
    """uint8 0..15 [rows, columns] -> int32 [rows, columns / 8], the first column in the lowest nibble."""
    return pack_words(values, PLAIN_ORDER)


def awq_columns(values: Tensor) -> Tensor:
    """uint8 [n, anything] -> AWQ words, int32 [anything, n / 8]."""
    return pack_words(values.T)


def marlin_scales(scales: Tensor, per_channel: bool) -> Tensor:
    """[n, groups] -> [groups, n] in Marlin's order."""
    order = MARLIN_CHANNEL if per_channel else MARLIN_GROUPED
    across = scales.T.contiguous()
    return across.view(-1, len(order))[:, list(order)].reshape(across.shape).contiguous()


def marlin_zeros(zeros: Tensor) -> Tensor:
    """uint8 [n, groups] -> int32 [groups, n / 8] in Marlin's order, with the interleaving its dequantizer undoes."""
    across = zeros.T.contiguous()
    ordered = across.view(-1, 64)[:, list(MARLIN_GROUPED)].reshape(across.shape).contiguous()
    return pack_words(ordered)
