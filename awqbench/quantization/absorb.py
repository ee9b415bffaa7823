"""The operation that absorbs the inverse of a scale: scaling a linear's input channels must not change the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn

Form = Literal["weight", "1 + weight", "rows"]


@dataclass(frozen=True, slots=True)
class Absorber:
    """A module, relative to the block, and the form in which its output channels can be divided.

    `weight`: a norm's gain and bias. `1 + weight`: a norm that stores its gain less one (Gemma). `rows`: rows of a
    linear, those that `channels` names.

    `channels` [in], int64, gives the absorber's row that feeds each of the readers' input channels; None means the last
    `in` rows, in order. Where one row feeds several channels (grouped queries: a value head serves several query heads)
    only scales that are equal on them can be absorbed: `share` makes them so.
    """

    module: str
    form: Form
    channels: Tensor | None = field(default=None, compare=False)

    @property
    def repeats(self) -> bool:
        """Whether some row feeds several channels."""
        return self.channels is not None and len(set(self.channels.tolist())) < self.channels.numel()

    def share(self, values: Tensor) -> Tensor:
        """`values` [in] averaged over the channels that share a row: with any power of it as scale a fold is exact."""
        if self.channels is None:
            return values
        rows = self.channels.to(values.device)
        sums = values.new_zeros(int(rows.max()) + 1).index_add_(0, rows, values)
        return (sums / rows.bincount())[rows]

    def row_scale(self, scale: Tensor, rows: int) -> Tensor:
        """What each of the absorber's `rows` is divided by for a `scale` [in] of the readers; 1 where it feeds none."""
        divisor = scale.new_ones(rows)
        if self.channels is None:
            divisor[-scale.numel() :] = scale
        else:
            divisor[self.channels.to(scale.device)] = scale
        return divisor

    def divide(self, block: nn.Module, scale: Tensor) -> None:
        """Divide the output channels by `scale` [in], in place."""
        with torch.no_grad():
            for name, parameter in block.get_submodule(self.module).named_parameters(recurse=False):
                divisor = self.row_scale(scale, parameter.shape[0]).to(parameter)
                divisor = divisor.view(-1, *[1] * (parameter.dim() - 1))
                if self.form == "1 + weight" and name == "weight":
                    parameter.data.add_(1).div_(divisor).sub_(1)
                else:
                    parameter.data.div_(divisor)


def scale_inputs(block: nn.Module, names: Sequence[str], scale: Tensor) -> None:
    """Multiply the input channels of modules with a weight [out, in] (linears, routers) by `scale` [in], in place."""
    with torch.no_grad():
        for name in names:
            weight = input_weight(block, name)
            weight.data.mul_(scale.to(weight))


def input_weight(block: nn.Module, name: str) -> Tensor:
    """The weight [out, in] of the module `name`, a linear or not."""
    return cast(Tensor, block.get_submodule(name).weight)
