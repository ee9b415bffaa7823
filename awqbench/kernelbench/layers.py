"""A product with what stands around it in a decoder layer, in three ways that are timed in turns.

All of it in one call; norm or gate by a kernel of ours before that call; kernels of torch around the plain product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from awqbench.kernelbench.compare import PREFIX
from awqbench.kernelbench.fused_checks import EPS, Surroundings, expected, surroundings, wide
from awqbench.kernelbench.ours import Operator
from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.problem import Problem, Shape
from awqbench.kernelbench.reference import Reference
from awqbench.kernelbench.shapes import layer_name
from awqbench.ops import cuda_fused
from awqbench.ops.fused_linear import GATES

MOST_ROWS = 16  # a decoding step's; with more, all three wait for the product


def around(shape: Shape) -> str:
    """What stands before this weight in a model: `silu` before a down projection, nothing before an attention's output,
    else `norm`. After it comes a residual where no norm comes before it."""
    layer = layer_name(shape).split(" ")[-1]
    return {"down": "silu", "o": "residual"}.get(layer, "norm")


class Layer(Operator):
    """One of the ways; `apart` as in Implementation.fused."""

    takes_in = False  # checked as `ours`

    def __init__(self, device: torch.device, name: str, apart: bool) -> None:
        super().__init__(device)
        self.raw_rows, self.name, self.apart = 0, PREFIX + name, apart
        self._made: tuple[tuple[object, ...], Tensor, Surroundings] | None = None

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """Many rows, and what is no other way than taken in."""
        what = around(shape)
        if m > MOST_ROWS:
            return f"{m} rows (at most {MOST_ROWS})"
        if what == "residual" and self.apart:
            return "nothing to compute before it"
        if what != "residual" and not self.apart and m > cuda_fused.MAX_TAKEN_IN:
            return f"{what} of {m} rows is not taken in"
        return super().refusal(shape, m, dtype)

    def expected(self, problem: Problem, m: int) -> Reference:
        """See Implementation."""
        n, k = problem.weights.codes.shape
        inputs, surrounding = self._around(Shape(n, k, problem.weights.group_size), problem.x[:m])
        return expected(problem, surrounding, inputs)

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """All of it, on inputs made of x once."""
        inputs, surrounding = self._around(Shape(packed["n"], packed["k"], packed["group"]), x)
        return self.call(packed, inputs, surrounding)

    def call(self, packed: Any, x: Tensor, surrounding: Surroundings) -> Tensor:
        """The way itself."""
        return self.fused(packed, x, apart=self.apart, **surrounding.rows(len(x)))

    def _around(self, shape: Shape, x: Tensor) -> tuple[Tensor, Surroundings]:
        """The same for the same x: a capture and a replay allocate nothing for it."""
        key = (shape, x.data_ptr(), tuple(x.shape), x.dtype)
        if self._made is None or self._made[0] != key:
            what = around(shape)
            made = surroundings("norm" if what == "residual" else what, shape, len(x), x.dtype, x.device)
            made = Surroundings(
                made.norm if what == "norm" else None, made.gate, None if what == "norm" else made.residual
            )
            self._made = key, wide(x, made), made
        return self._made[1:]


class Separate(Layer, Peer):
    """Torch's kernels around the plain product; like a peer it rounds between them."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, "separate", apart=False)

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """Many rows."""
        return f"{m} rows (at most {MOST_ROWS})" if m > MOST_ROWS else Operator.refusal(self, shape, m, dtype)

    def call(self, packed: Any, x: Tensor, surrounding: Surroundings) -> Tensor:
        """See Layer."""
        if surrounding.norm is not None:
            x = rms_norm(x, x.shape[-1:], surrounding.norm.to(x.dtype), EPS)
        elif surrounding.gate is not None:
            first, second = x.chunk(2, dim=-1)
            x = GATES[surrounding.gate](first) * second
        y = Operator.run(self, packed, x)
        return y if surrounding.residual is None else y + surrounding.residual


def our_layers(device: torch.device) -> Sequence[Layer]:
    """The three ways."""
    return Layer(device, "taken-in", apart=False), Layer(device, "apart", apart=True), Separate(device)
