"""How codes lie in memory for the kernels of this package: two codes in a byte, or one if it needs over 4 bits.

Rows of nibbles come in blocks of 32 codes: byte j holds code j in its low and code 16 + j in its high nibble, so that
widening 8 or 16 bytes gives consecutive codes without a shuffle. Rows whose groups are neither 16 nor a multiple of
32, or that aren't whole blocks, take blocks of 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 32
NIBBLE, BYTE = 4, 8


def code_width(bits: int) -> int:
    """Bits that a code of `bits` takes in memory: 4 or 8."""
    return NIBBLE if bits <= NIBBLE else BYTE


def block_size(group_size: int, inputs: int) -> int:
    """Codes per block of a row: neither the low nor the high nibbles of a block straddle two groups."""
    return BLOCK if inputs % BLOCK == 0 and (group_size % BLOCK == 0 or 2 * group_size == BLOCK) else 2


def pack_rows(codes: Tensor, group_size: int, width: int = NIBBLE) -> Tensor:
    """uint8 codes [rows, K] -> uint8 [rows, ceil(K / 2)], or [rows, K] when `width` is 8."""
    if width == BYTE:
        return codes.contiguous()
    rows, inputs = codes.shape
    block = block_size(group_size, inputs)
    if inputs % block:
        codes = torch.nn.functional.pad(codes, (0, block - inputs % block))
    halves = codes.reshape(rows, -1, 2, block // 2)
    return (halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(rows, -1)


def unpack_rows(packed: Tensor, inputs: int, group_size: int, width: int = NIBBLE) -> Tensor:
    """The inverse of `pack_rows`: uint8 codes [rows, inputs]."""
    if width == BYTE:
        return packed
    halves = packed.view(packed.shape[0], -1, block_size(group_size, inputs) // 2)
    return torch.stack((halves & 0xF, halves >> 4), dim=2).view(packed.shape[0], -1)[:, :inputs]
