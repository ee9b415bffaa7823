"""The result every kernel is held against: float64 over the weights exactly as they are stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from awqbench.kernelbench.problem import Problem
from awqbench.quantization.tensor import QuantizedTensor

CHUNK = 2**26  # weights dequantized to float64 at a time: half a gigabyte


@dataclass(frozen=True)
class Reference:
    """`y` [m, n], and `spread` [m, n] = sqrt(x^2 (W^2)^T), both float64: the root of the sum of squared terms, which is
    what independent roundings of the terms add up to, in units of the roundoff."""

    y: Tensor
    spread: Tensor

    def rows(self, m: int) -> Reference:
        """The first m rows."""
        return Reference(self.y[:m], self.spread[:m])


def dequantize(weights: QuantizedTensor, rows: slice, dtype: torch.dtype) -> Tensor:
    """(code - zero) * scale of some rows, computed in float64, which holds it exactly, then cast."""
    codes = weights.codes[rows]
    value = codes.view(codes.shape[0], -1, weights.group_size).double() - weights.zeros[rows].unsqueeze(-1).double()
    return (value * weights.scales[rows].unsqueeze(-1).double()).view(codes.shape).to(dtype)


def dense(weights: QuantizedTensor, dtype: torch.dtype) -> Tensor:
    """The weight [n, k] rounded once to `dtype`."""
    return torch.cat([dequantize(weights, rows, dtype) for rows in _chunks(weights)])


def reference(problem: Problem) -> Reference:
    """The product in float64, chunk by chunk of rows."""
    x = problem.x.double()
    squares = x.square()
    values, spreads = [], []
    for rows in _chunks(problem.weights):
        weight = dequantize(problem.weights, rows, torch.float64)
        values.append(x @ weight.T)
        spreads.append((squares @ weight.square_().T).sqrt_())
    y, spread = torch.cat(values, dim=1), torch.cat(spreads, dim=1)
    if problem.bias is not None:
        y += problem.bias.double()
    return Reference(y, spread)


def _chunks(weights: QuantizedTensor) -> list[slice]:
    n, k = weights.codes.shape
    step = max(1, CHUNK // k)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
