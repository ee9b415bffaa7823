"""Products of a step: packed weights by `fused_linear`, with what stands before and after them taken in where it can,
all else by torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from awqbench.ops.fused_linear import GATES, fused_linear
from awqbench.ops.linear import QuantizedLinear
from awqbench.runtime.describe import Norm


class Packed(NamedTuple):
    """As `fused_linear` takes a weight."""

    tiles: Tensor
    steps: Tensor
    bias: Tensor | None
    out_features: int
    group_size: int


class Product:
    """f(x) W^T + b of one linear, or of several that read the same x, their outputs side by side; f is a norm, a gate,
    or nothing. One launch where the weight is one packed weight."""

    def __init__(
        self, linears: Sequence[Any], dtype: torch.dtype, *, norm: Norm = None, gate: str | None = None
    ) -> None:
        self._parts, self._columns = _parts(linears)
        self._gate, self._norm = gate, RmsNorm.of(norm, dtype)
        # What the packed weights' own launches take in, unless another linear wants it too.
        self._apart = not all(isinstance(part, Packed) for part in self._parts)
        self._before: dict[str, Any] = {}
        if not self._apart:
            self._before = {"gate": gate} if norm is None else {"gate": gate, "norm": norm[0], "eps": norm[1]}

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x [batch, K] (with a gate [batch, 2 K]); `residual` is added, for a single linear only."""
        if self._apart:
            x = self._inputs(x)
        joined = not self._apart and residual is not None
        rows = [
            fused_linear(x, *part, **self._before, residual=residual if joined else None)
            if isinstance(part, Packed)
            else part(x)
            for part in self._parts
        ]
        y: Tensor = rows[0] if len(rows) == 1 else torch.cat(rows, 1)
        if self._columns is not None:
            y = y.index_select(1, self._columns)
        return y if residual is None or joined else residual + y

    def _inputs(self, x: Tensor) -> Tensor:
        if self._norm is not None:
            return self._norm(x)
        if self._gate is None:
            return x
        first, second = x.chunk(2, dim=1)
        return GATES[self._gate](first) * second


def _parts(linears: Sequence[Any]) -> tuple[list[Packed | nn.Module], Tensor | None]:
    """The weights that make these linears' outputs, and which of their outputs, side by side, are no padding; None: all
    are."""
    shared = getattr(linears[0], "shared", None)
    if shared is None or not shared.is_of(linears):
        return [_whole(linear) if is_packed(linear) else linear for linear in linears], None
    tiles, steps, bias = shared.whole()
    exact = shared.out_features == sum(linear.out_features for linear in linears)
    whole = Packed(tiles, steps, bias, shared.out_features, shared.group_size)
    return [whole], None if exact else shared.columns()


def _whole(linear: QuantizedLinear) -> Packed:
    tiles, steps = linear.get_buffer("tiles"), linear.get_buffer("steps")
    return Packed(tiles, steps, linear.bias, linear.out_features, linear.group_size)


def is_packed(module: Any) -> bool:
    """Whether it is a linear whose weight `fused_linear` takes."""
    return isinstance(module, QuantizedLinear) and module.kernel == "cuda"


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """An RMS norm by torch: in the type of x, where its weight has no more bits, else in float32."""

    weight: Tensor
    eps: float

    @staticmethod
    def of(norm: Norm, dtype: torch.dtype) -> RmsNorm | None:
        """The norm of a description, for results in `dtype`."""
        if norm is None:
            return None
        weight, eps = norm
        narrow = weight.to(dtype)
        return RmsNorm(narrow if torch.equal(narrow.float(), weight) else weight, eps)

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., size] -> [..., size], in x's type."""
        wide = x.to(self.weight.dtype)
        return functional.rms_norm(wide, self.weight.shape, self.weight, self.eps).to(x.dtype)
