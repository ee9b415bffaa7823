"""Random problems for a W4A16 linear: hard enough that a wrong index, zero point or tail shows.

Draws depend on the seed, and on the kind of device, whose generators differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from awqbench.quantization.tensor import QuantizedTensor

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
OUTLIER = 50.0  # activations of language models have a few channels this much larger than the rest


@dataclass(frozen=True, order=True)
class Shape:
    """A weight [n, k] in groups of `group` along k; group == k is one scale per row."""

    n: int
    k: int
    group: int

    def __post_init__(self) -> None:
        if self.k % self.group:
            raise ValueError(f"{self.k} columns do not divide into groups of {self.group}")

    def __str__(self) -> str:
        return f"{self.n}x{self.k} " + ("per channel" if self.group == self.k else f"g{self.group}")


@dataclass(frozen=True)
class Problem:
    """Weights, the input rows x [m, k] and a bias [n] or None; x and bias in the same 16-bit type."""

    weights: QuantizedTensor
    x: Tensor
    bias: Tensor | None


def random_problem(
    shape: Shape, m: int, dtype: torch.dtype, device: torch.device, *, bias: bool = False, seed: int = 0
) -> Problem:
    """Codes and zero points over their whole range, scales over three decades, x with outlier channels."""
    draw = torch.Generator(device).manual_seed(seed)
    x = torch.randn(m, shape.k, generator=draw, device=device)
    outliers = torch.randint(shape.k, (min(4, shape.k // 32),), generator=draw, device=device)
    x[:, outliers] *= OUTLIER
    size = 10.0 * torch.randn(shape.n, generator=draw, device=device)
    return Problem(random_weights(shape, device, draw), x.to(dtype), size.to(dtype) if bias else None)


def random_weights(shape: Shape, device: torch.device, draw: torch.Generator) -> QuantizedTensor:
    """Codes 0..15, zero points 0..15, scales log-uniform in 1e-4 .. 1e-1 (float16)."""
    codes = torch.randint(16, (shape.n, shape.k), generator=draw, device=device, dtype=torch.uint8)
    groups = (shape.n, shape.k // shape.group)
    zeros = torch.randint(16, groups, generator=draw, device=device, dtype=torch.uint8)
    scales = 10.0 ** (3 * torch.rand(groups, generator=draw, device=device) - 4)
    return QuantizedTensor(codes, scales.half(), zeros, 4, shape.group)


def exact_problem(shape: Shape, m: int, dtype: torch.dtype, device: torch.device, *, seed: int = 0) -> Problem:
    """A problem whose every partial sum is exact in float32 and whose results are exact in `dtype`.

    x holds a few ones and minus ones in each row, scales are 1/2, 1 or 2: results are multiples of 1/2 of at most
    nonzeros * 15 * 2, which 11 (float16) or 8 (bfloat16) significant bits hold.
    """
    draw = torch.Generator(device).manual_seed(seed)
    nonzeros = min(16 if dtype == torch.float16 else 4, shape.k)
    weights = random_weights(shape, device, draw)
    powers = torch.randint(-1, 2, weights.scales.shape, generator=draw, device=device)
    x = torch.zeros(m, shape.k, device=device)
    places = torch.rand(m, shape.k, generator=draw, device=device).topk(nonzeros, dim=1).indices
    signs = torch.randint(2, (m, nonzeros), generator=draw, device=device) * 2.0 - 1.0
    x.scatter_(1, places, signs)
    return Problem(
        QuantizedTensor(weights.codes, (2.0**powers).half(), weights.zeros, 4, shape.group), x.to(dtype), None
    )
