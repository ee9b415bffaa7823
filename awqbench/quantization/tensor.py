"""The one form every quantizer hands to every format: integer codes with their scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """A linear's weight as group-wise integers: value = (codes - zeros) * scales.

    `codes` uint8 [out, in], 0 .. 2**bits - 1; `scales` [out, in / group_size], exactly as stored in a checkpoint:
    float16 in those made here, also bfloat16 or float32 in those of others; `zeros` uint8 [out, in / group_size],
    integer zero points, all 2**(bits - 1) where the quantization is symmetric. One group spans a whole row where scales
    are per channel.
    `order` int64 [in], of checkpoints with an activation order: column j of the codes is input order[j].
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    bits: int
    group_size: int
    order: Tensor | None = None

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [out, in], computed in float32 from the stored scales, then cast."""
        out, inputs = self.codes.shape
        codes = self.codes.view(out, -1, self.group_size).float()
        value = (codes - self.zeros.unsqueeze(-1).float()) * self.scales.unsqueeze(-1).float()
        value = value.view(out, inputs).to(dtype)
        return value if self.order is None else torch.empty_like(value).index_copy_(1, self.order, value)
