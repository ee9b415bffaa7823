"""Prove a fold on the block itself: whether an operation can absorb a scale is never looked up by architecture."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from awqbench.modeling.experts import Experts
from awqbench.quantization.absorb import Absorber, input_weight, scale_inputs
from awqbench.quantization.calibrate import BlockCall

# A wrong fold is off by a share of order 1, a right one by rounding noise only (float32's: norms compute in it).
_TOLERANCE = 1e-4
_EXPERTS = 3


class Prover:
    """Tries folds on a copy of a block, with one short stretch of its calibration input.

    In float64, or in float32 where an operation of the block has no float64 form.
    """

    def __init__(self, block: nn.Module, call: BlockCall, hidden: Tensor, seed: int = 0) -> None:
        self.seed = seed
        self.dtype = torch.float64
        try:
            self._copy(block, call, hidden)
        except RuntimeError:
            self.dtype = torch.float32
            self._copy(block, call, hidden)

    @property
    def finite(self) -> bool:
        """Whether the block's output is; where it isn't nothing can be proved."""
        return bool(self.expected.isfinite().all())

    def preserves(self, absorber: Absorber, readers: Sequence[str]) -> bool:
        """Whether folding random positive scales into both sides leaves the block's output as it was.

        `readers` are all modules whose input is divided. The yardstick is what scaling them alone does to the output: a
        scale whose effect cannot be seen at all (dead weights, no path to the output) proves nothing.
        """
        width = input_weight(self.block, readers[0]).shape[1]
        generator = torch.Generator().manual_seed(self.seed)
        scale = absorber.share(0.5 + 1.5 * torch.rand(width, generator=generator, dtype=torch.float64)).to(self.hidden)
        names = list({id(self.block.get_submodule(name)): name for name in readers}.values())  # experts are shared
        scale_inputs(self.block, names, scale)
        one_sided = self._distance()
        absorber.divide(self.block, scale)
        both_sided = self._distance()
        absorber.divide(self.block, 1 / scale)
        scale_inputs(self.block, names, 1 / scale)
        return one_sided > 0 and both_sided <= _TOLERANCE * one_sided

    def _copy(self, block: nn.Module, call: BlockCall, hidden: Tensor) -> None:
        self.block = copy.deepcopy(block, _few_experts(block)).to(self.dtype)
        self.call = cast_call(call, self.dtype)
        self.hidden = hidden.to(self.dtype)
        self.expected = self._run()

    def _run(self) -> Tensor:
        return self.call(self.block, self.hidden)

    def _distance(self) -> float:
        return float((self._run() - self.expected).norm())


def _few_experts(block: nn.Module) -> dict[int, Any]:
    """A memo for deepcopy that lets few experts stand for all of a layer's.

    Whether a fold holds cannot depend on which: they read one tensor, through linears only. The copy stays small.
    """
    memo: dict[int, Any] = {}
    for layer in block.modules():
        if isinstance(layer, Experts):
            few = [copy.deepcopy(expert) for expert in list(layer)[:_EXPERTS]]
            memo |= {id(expert): few[index % len(few)] for index, expert in enumerate(layer)}
    return memo


def cast_call(call: BlockCall, dtype: torch.dtype) -> BlockCall:
    """The same call with its floating-point tensors in `dtype`."""
    return BlockCall(_cast(call.args, dtype), _cast(call.kwargs, dtype))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(_cast(item, dtype) for item in value)
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value
