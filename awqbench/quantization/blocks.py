"""Where a causal LM keeps its decoder blocks, and the linears in them: found by structure, for any architecture."""

from __future__ import annotations

import copy
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from awqbench.errors import UserError


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The decoder's stack of blocks with its name: the module list that holds the most parameters.

    (The longest list would be wrong for mixtures of experts, which have more experts than blocks.) Where the model says
    which of its parts is the text decoder only that is searched: a vision tower has blocks too, and may be the larger.
    Raises UserError when there is no module list with parameters.
    """
    name, stack = _largest_list(_text_decoder(model), model)
    if not _parameters(stack):
        name, stack = _largest_list(model, model)
    if not _parameters(stack):
        raise UserError(f"{type(model).__name__} has no stack of decoder blocks, so nothing in it can be quantized")
    return name, stack


def _text_decoder(model: nn.Module) -> nn.Module:
    decoder = model.get_decoder() if isinstance(model, PreTrainedModel) else None
    return decoder if isinstance(decoder, nn.Module) else model


def _largest_list(part: nn.Module, model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The module list below `part` with the most parameters, by its name in `model`."""
    inside = {id(module) for module in part.modules()}
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and id(module) in inside
    ]
    return max(lists, key=lambda item: _parameters(item[1]), default=("", nn.ModuleList()))


def linears_of(module: nn.Module, prefix: str) -> dict[str, nn.Linear]:
    """Every linear below `module` by its name, in the model's order."""
    return {name: child for name, child in module.named_modules(prefix=prefix) if is_linear(child)}


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module computes what a plain linear does: only then can a packed linear stand in for it.

    A subclass with a forward of its own is tried out with a small weight: Falcon's passes, a grouped linear doesn't.
    """
    if not isinstance(module, nn.Linear):
        return False
    return type(module).forward is nn.Linear.forward or _like_a_linear(module)


def _like_a_linear(module: nn.Linear) -> bool:
    weight, hidden = torch.arange(12.0).sin().view(3, 4), torch.arange(8.0).cos().view(1, 2, 4)
    bias = None if module.bias is None else torch.ones(3)
    small = copy.copy(module)
    small._parameters = {
        "weight": nn.Parameter(weight, False),
        "bias": None if bias is None else nn.Parameter(bias, False),
    }
    try:
        output = small.forward(hidden)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False
    expected = nn.functional.linear(hidden, weight, bias)
    return isinstance(output, Tensor) and output.shape == expected.shape and torch.allclose(output, expected)


def unreachable(blocks: nn.ModuleList, prefix: str) -> list[str]:
    """Weight matrices of the blocks that no linear holds, such as fused experts: they stay in full precision."""
    owned = {id(linear.weight) for linear in linears_of(blocks, prefix).values()}
    matrices = ((name, weight) for name, weight in blocks.named_parameters(prefix) if weight.dim() > 1)
    return [name for name, weight in matrices if id(weight) not in owned]


def routers(module: nn.Module, prefix: str) -> list[str]:
    """The linears below `module` that choose between experts, or gate a shared one: they stay in full precision.

    Found by structure: they stand beside a layer's experts and have one output for each expert, or one in all.
    """
    found = []
    for name, layer in module.named_modules(prefix=prefix):
        inside = tuple(f"{name}.{child}." for child, part in layer.named_children() if _experts(part))
        outputs = {1, *(_experts(part) for part in layer.children())} if inside else set()
        for linear, part in linears_of(layer, name).items():
            if not linear.startswith(inside or (name,)) and part.out_features in outputs:
                found.append(linear)
    return found


def _experts(module: nn.Module) -> int:
    """How many experts a module holds, fused or not; 0 for anything else."""
    if isinstance(module, nn.ModuleList):
        return len(module)
    if isinstance(module, _ConvNd):
        return 0
    return next((len(parameter) for parameter in module.parameters(recurse=False) if parameter.dim() == 3), 0)


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
    weight, bias = (cast(Tensor, parameter).detach() for parameter in (old.weight, old.bias))
    new.weight = nn.Parameter(weight.T.contiguous(), requires_grad=False)
    new.bias = nn.Parameter(bias, requires_grad=False)
    model.set_submodule(name, new)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
