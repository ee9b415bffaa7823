"""Where a causal LM keeps its decoder blocks, and the linears in them: found by structure, for any architecture."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from awqbench.errors import UserError


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The decoder's stack of blocks with its name: the module list that holds the most parameters.

    (The longest list would be wrong for mixtures of experts, which have more experts than blocks.)
    Raises UserError when the model has no module list with parameters.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    name, stack = max(lists, key=lambda item: _parameters(item[1]), default=("", nn.ModuleList()))
    if not _parameters(stack):
        raise UserError(f"{type(model).__name__} has no stack of decoder blocks, so nothing in it can be quantized")
    return name, stack


def linears_of(module: nn.Module, prefix: str) -> dict[str, nn.Linear]:
    """Every linear below `module` by its name, in the model's order."""
    return {name: child for name, child in module.named_modules(prefix=prefix) if isinstance(child, nn.Linear)}


def unreachable(blocks: nn.ModuleList, prefix: str) -> list[str]:
    """Weight matrices of the blocks that no linear holds, such as fused experts: they stay in full precision."""
    owned = {id(linear.weight) for linear in linears_of(blocks, prefix).values()}
    matrices = ((name, weight) for name, weight in blocks.named_parameters(prefix) if weight.dim() > 1)
    return [name for name, weight in matrices if id(weight) not in owned]


def linear_at(module: nn.Module, name: str) -> nn.Linear:
    """The linear called `name` below `module`."""
    return cast(nn.Linear, module.get_submodule(name))


def untranspose(model: nn.Module) -> list[str]:
    """Replace transformers' Conv1D (GPT-2: a linear whose weight is stored [in, out]) by plain linears; their names."""
    names = [name for name, module in model.named_modules() if isinstance(module, Conv1D)]
    for name in names:
        conv = cast(Conv1D, model.get_submodule(name))
        inputs, out = conv.weight.shape
        _replace(model, name, nn.Linear(inputs, out, device="meta"), conv)
    return names


def transpose_back(model: nn.Module, names: list[str]) -> None:
    """Undo `untranspose` for the linears named, so that the checkpoint stores them as the architecture expects."""
    for name in names:
        linear = linear_at(model, name)
        _replace(model, name, Conv1D(linear.out_features, linear.in_features), linear)


def _replace(model: nn.Module, name: str, new: nn.Module, old: nn.Module) -> None:
    weight, bias = (cast(torch.Tensor, parameter).detach() for parameter in (old.weight, old.bias))
    new.weight = nn.Parameter(weight.T.contiguous(), requires_grad=False)
    new.bias = nn.Parameter(bias, requires_grad=False)
    model.set_submodule(name, new)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
