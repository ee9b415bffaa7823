"""The operation that absorbs the inverse of a scale: scaling a linear's input channels must not change the model.

Whether an operation can do so is never looked up by architecture: it is proved on the block itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from awqbench.quantization.blocks import linear_at
from awqbench.quantization.calibrate import BlockCall

Form = Literal["weight", "1 + weight", "rows"]

# A wrong fold is off by a share of order 1, a right one by rounding noise only (float32's: norms compute in it).
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Absorber:
    """A module, relative to the block, and the form in which its output channels can be divided.

    `weight`: a norm's gain and bias. `1 + weight`: a norm that stores its gain less one (Gemma). `rows`: the last rows
    of a linear (all of them, or the up half of a fused gate and up).
    """

    module: str
    form: Form

    def divide(self, block: nn.Module, scale: Tensor) -> None:
        """Divide the output channels by `scale` [channels], in place."""
        module = block.get_submodule(self.module)
        width = scale.numel()
        with torch.no_grad():
            for name, parameter in module.named_parameters(recurse=False):
                part = parameter.data[-width:]
                divisor = scale.to(part).view(-1, *[1] * (part.dim() - 1))
                if self.form == "1 + weight" and name == "weight":
                    part.add_(1).div_(divisor).sub_(1)
                else:
                    part.div_(divisor)


def candidates(block: nn.Module, makers: Sequence[str], earlier: Sequence[str], reader: str) -> Iterator[Absorber]:
    """What might absorb a scale of the input that `reader` and its group share, likeliest first.

    `makers` are the modules whose output is that very tensor. Where none of them has weights the tensor was computed
    from other outputs (an attention's mix of values, act(gate) * up, relu(fc1)): linears of the same parent that ran
    `earlier`.
    """
    weighted = [name for name in makers if next(block.get_submodule(name).parameters(recurse=False), None) is not None]
    width = linear_at(block, reader).in_features
    for name in weighted:
        module = block.get_submodule(name)
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.Linear):
            yield Absorber(name, "rows")
        elif all(parameter.dim() == 1 and parameter.numel() == width for parameter in own.values()):
            yield Absorber(name, "weight")
            yield Absorber(name, "1 + weight")
    if weighted:
        return
    parent = reader.rpartition(".")[0]
    siblings = [name for name in earlier if name.rpartition(".")[0] == parent]
    for name in reversed(siblings):
        if linear_at(block, name).out_features >= width:
            yield Absorber(name, "rows")


def scale_inputs(block: nn.Module, readers: Sequence[str], scale: Tensor) -> None:
    """Multiply the input channels of the linears `readers` by `scale` [in], in place."""
    with torch.no_grad():
        for name in readers:
            weight = linear_at(block, name).weight
            weight.data.mul_(scale.to(weight))


class Prover:
    """Tries folds on a copy of a block, with one short stretch of its calibration input.

    In float64, or in float32 where an operation of the block has no float64 form (grouped matrix products of experts).
    """

    def __init__(self, block: nn.Module, call: BlockCall, hidden: Tensor, seed: int = 0) -> None:
        self.seed = seed
        self.dtype = torch.float64
        try:
            self._copy(block, call, hidden)
        except RuntimeError:
            self.dtype = torch.float32
            self._copy(block, call, hidden)

    def preserves(self, absorber: Absorber, readers: Sequence[str]) -> bool:
        """Whether folding random positive scales into both sides leaves the block's output as it was.

        The yardstick is what scaling the readers alone does to the output: a scale whose effect cannot be seen at all
        (dead weights, no path to the output) proves nothing.
        """
        width = linear_at(self.block, readers[0]).in_features
        generator = torch.Generator().manual_seed(self.seed)
        scale = (0.5 + 1.5 * torch.rand(width, generator=generator, dtype=torch.float64)).to(self.hidden)
        scale_inputs(self.block, readers, scale)
        one_sided = self._distance()
        absorber.divide(self.block, scale)
        both_sided = self._distance()
        absorber.divide(self.block, 1 / scale)
        scale_inputs(self.block, readers, 1 / scale)
        return one_sided > 0 and both_sided <= _TOLERANCE * one_sided

    def _copy(self, block: nn.Module, call: BlockCall, hidden: Tensor) -> None:
        self.block = copy.deepcopy(block).to(self.dtype)
        self.call = BlockCall(_cast(call.args, self.dtype), _cast(call.kwargs, self.dtype))
        self.hidden = hidden.to(self.dtype)
        self.expected = self._run()

    def _run(self) -> Tensor:
        return self.call(self.block, self.hidden)

    def _distance(self) -> float:
        return float((self._run() - self.expected).norm())


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """A nest of tuples, lists and dicts with every floating-point tensor in `dtype`."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(_cast(item, dtype) for item in value)
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value
