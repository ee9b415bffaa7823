"""The reference implementation, right for every shape and device: dequantize a few rows, multiply, go on."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear as dense_linear

from awqbench.ops.layout import NIBBLE, unpack_rows

SCRATCH_BYTES = 8 * 2**20


def dequantize_rows(
    codes: Tensor, scales: Tensor, zeros: Tensor, inputs: int, group_size: int, width: int = NIBBLE
) -> Tensor:
    """float32 weight rows [rows, inputs] from packed codes, scales of any float dtype, uint8 zeros [rows, groups]."""
    values = unpack_rows(codes, inputs, group_size, width).reshape(codes.shape[0], -1, group_size).float()
    return ((values - zeros.unsqueeze(-1).float()) * scales.unsqueeze(-1).float()).view(codes.shape[0], inputs)


def linear(
    x: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None, group_size: int, width: int = NIBBLE
) -> Tensor:
    """x [rows, K] times the transposed weight, in x's type; the float32 scratch holds SCRATCH_BYTES, or one row."""
    out_features, inputs = zeros.shape[0], x.shape[1]
    step = max(1, SCRATCH_BYTES // (4 * max(1, inputs)))
    out = x.new_empty(x.shape[0], out_features)
    for begin in range(0, out_features, step):
        rows = slice(begin, begin + step)
        weight = dequantize_rows(codes[rows], scales[rows], zeros[rows], inputs, group_size, width).to(x.dtype)
        out[:, rows] = dense_linear(x, weight)
    return out if bias is None else out + bias.to(x.dtype)
