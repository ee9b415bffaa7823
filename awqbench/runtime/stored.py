"""Embedding and language model head in the 16-bit type of the checkpoint, computed in float32.

A checkpoint stores them in 16 bits; held in float32 they are twice the memory, and the head is the largest weight that
a token reads. Widening is exact, so nothing is lost: a weight is held in 16 bits only if it comes back bit for bit.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from awqbench.ops import cpu
from awqbench.ops.build import library
from awqbench.runtime.structures import BRAIN, FLOAT, HALF, Linear

KINDS = {torch.float16: HALF, torch.bfloat16: BRAIN, torch.float32: FLOAT}
FEW_ROWS = 16  # up to here the rows are read as they are stored; above, chunks are widened for torch to multiply
CHUNK_BYTES = 2 * 2**20


def as_stored(weight: Tensor) -> Tensor:
    """float32 [rows, K] in float16 or bfloat16 where that holds every value exactly, else the weight itself."""
    held = weight.detach()
    for dtype in (torch.float16, torch.bfloat16):
        narrow = held.to(dtype, memory_format=torch.contiguous_format)
        # In parts: the largest tensor of a model shall not be in memory once more for this.
        pairs = zip(_parts(narrow), _parts(held), strict=True)
        if all(torch.equal(part.to(held.dtype), whole) for part, whole in pairs):
            return narrow
        del narrow
    return held


def _parts(weight: Tensor) -> tuple[Tensor, ...]:
    """Rows [.., K] of about CHUNK_BYTES in float32."""
    return torch.split(weight, max(1, CHUNK_BYTES // (4 * weight.shape[1])))


class StoredEmbedding(nn.Module):
    """Rows of a 16-bit table, in float32, times `scale`: ids [...] -> [..., hidden]."""

    bits: Tensor

    def __init__(self, table: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.dtype, self.scale = table.dtype, scale
        # As integers, so that module.to(dtype) cannot round or widen them.
        self.register_buffer("bits", table.view(torch.int16))

    @property
    def table(self) -> Tensor:
        """The values [rows, hidden] in the type they are stored in."""
        return self.bits.view(self.dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] -> float32 [..., hidden]."""
        rows = nn.functional.embedding(ids, self.table).float()
        return rows if self.scale == 1 else rows * self.scale


class StoredLinear(nn.Module):
    """y = x W^T with W [out, in] in 16 bits and float32 arithmetic; x float [..., in], y in x's type."""

    bits: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.dtype = weight.dtype
        self.out_features, self.in_features = weight.shape
        self.register_buffer("bits", weight.view(torch.int16))

    @property
    def stored(self) -> Tensor:
        """The values [out, in] in the type they are stored in."""
        return self.bits.view(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], in x's type."""
        rows = x.reshape(-1, self.in_features).float().contiguous()
        out = rows.new_empty(rows.shape[0], self.out_features)
        if 0 < rows.shape[0] <= FEW_ROWS:
            held = Linear(self.bits.data_ptr(), None, None, None, *self.bits.shape, 0, KINDS[self.dtype])
            multiply(held, rows, out)
        else:
            begin = 0
            for part in _parts(self.stored):
                torch.mm(rows, part.float().T, out=out[:, begin : begin + len(part)])
                begin += len(part)
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)


def multiply(weight: Linear, x: Tensor, out: Tensor, isa: int | None = None) -> None:
    """out [M, N] = x [M, K] times the transposed weight as the native step multiplies it; float32, contiguous."""
    function = library().awqbench_decode_linear
    function.restype = None
    function(
        ctypes.byref(weight), ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(x.shape[0]),
        ctypes.c_void_p(out.data_ptr()), torch.get_num_threads(), cpu.best_isa() if isa is None else isa,
    )  # fmt: skip
