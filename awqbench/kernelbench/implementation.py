"""What the checks and timings ask of a kernel: ours, each variant of it, or a peer."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.problem import Problem, Shape
from awqbench.kernelbench.reference import Reference
from awqbench.quantization.tensor import QuantizedTensor


class Implementation(ABC):
    """A W4A16 linear. `name` stands in results; `note` says how a peer is asked, where that matters for its figures."""

    name: str
    note: str = ""
    raw_rows = 0  # up to how many rows `run_into` takes; 0: it does not exist
    takes_in = False  # whether `fused` exists

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """Why it does not take this problem, or None."""
        return None

    @abstractmethod
    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        """Weights (and a bias [n] of `dtype`) in the kernel's own layout, on the weights' device."""

    @abstractmethod
    def run(self, packed: Any, x: Tensor) -> Tensor:
        """x [m, k] -> a new [m, n] in x's type, on the current stream, without waiting for it."""

    def expected(self, problem: Problem, m: int) -> Reference | None:
        """What `run` gives for the first m rows in float64, where that is not their plain product."""
        return None

    def run_into(self, packed: Any, x: Tensor, y: Tensor, workspace: Tensor) -> None:
        """The same into y [m, n], which is contiguous, with a workspace (uint8) of the caller's; rows of x may lie
        apart. The workspace comes zeroed or as an earlier call left it. Raises TypeError where `raw_rows` is 0."""
        raise TypeError(f"{self.name} has no raw interface")

    def workspace_bytes(self, packed: Any, m: int) -> int:
        """Size of `run_into`'s workspace for m rows."""
        return 0

    def fused(self, packed: Any, x: Tensor, *, apart: bool | None = None, **around: Any) -> Tensor:
        """`run` with the norm, gate and residual of ops.fused_linear taken in; `apart`: f(x) by a kernel of its own, or
        not, or as the default chooses. Raises TypeError where `takes_in` is false."""
        raise TypeError(f"{self.name} takes nothing in")

    def ways(self, m: int, what: str) -> list[bool]:
        """What `apart` may be for m rows and `norm` or the name of a gate."""
        return []

    def unpack(self, packed: Any) -> QuantizedTensor | None:
        """The weights again, exactly; None where the layout is another's and does not matter to us."""
        return None

    def copy(self, packed: Any) -> Any:
        """The same in other memory, so that a cache that holds one does not hold the other."""
        return copy.deepcopy(packed)

    def bytes_of(self, packed: Any) -> int:
        """Bytes of all tensors in `packed`."""
        return _bytes(packed)


def _bytes(value: Any) -> int:
    if isinstance(value, torch.nn.Module):
        return sum(map(_bytes, [*value.parameters(), *value.buffers()]))
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, tuple | list):
        return sum(map(_bytes, value))
    return 0
