"""Memory with a fence around it, so that a write past either end shows.

Both the fence and, before a run, the inside hold 0xFF bytes: as float16 and as bfloat16 they are NaN, so that an
element nobody wrote shows too.
"""

from __future__ import annotations

import torch
from torch import Tensor

FENCE = 4096
POISON = 0xFF


class Guarded:
    """`inside`: uint8 [size], 256-byte aligned, between two fences of 4 KB."""

    def __init__(self, size: int, device: torch.device, fill: int = POISON) -> None:
        self._buffer = torch.full((size + 2 * FENCE,), POISON, dtype=torch.uint8, device=device)
        self.inside = self._buffer[FENCE : FENCE + size]
        if fill != POISON:
            self.inside.fill_(fill)

    def as_matrix(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """The inside as a contiguous [rows, columns] of a 16-bit type."""
        return self.inside.view(dtype).view(rows, columns)

    def damage(self) -> int:
        """Bytes of the fences that were written over."""
        fences = torch.cat([self._buffer[:FENCE], self._buffer[self._buffer.numel() - FENCE :]])
        return int((fences != POISON).sum())


def fenced_rows(x: Tensor, gap: int = 64) -> Tensor:
    """x [m, k] with `gap` NaNs after each row: a kernel that reads past k takes one in."""
    wide = torch.full((x.shape[0], x.shape[1] + gap), float("nan"), dtype=x.dtype, device=x.device)
    wide[:, : x.shape[1]] = x
    return wide[:, : x.shape[1]]
