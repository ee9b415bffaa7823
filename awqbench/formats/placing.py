"""Where the tensors of a checkpoint belong in a model, and putting them there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from awqbench.errors import UserError
from awqbench.modeling.experts import Experts, disk_names, unfuse_experts
from awqbench.modeling.fused import fused_layout
from awqbench.modeling.names import Names


def unfuse_experts_of(model: PreTrainedModel, names: Names, linears: Iterable[str]) -> None:
    """Turn the fused experts that some of the linears, named as on disk, belong to into linears of their own."""
    modules = dict(model.named_modules())
    fused = set()
    for linear in linears:
        target = names.in_model(f"{linear}.weight") or linear
        while target and target not in modules:
            target = target.rpartition(".")[0]
        if target and fused_layout(modules[target]) is not None:
            fused.add(target)
    for name in sorted(fused):
        parent, _, own = name.rpartition(".")
        if own not in unfuse_experts(model.get_submodule(parent)):
            raise UserError(f"the experts {name} cannot be taken apart")


def experts_on_disk(model: PreTrainedModel) -> dict[str, str]:
    """Module names of the linears of experts that are not fused, by their names on disk."""
    owners = {name for name, module in model.named_modules() if isinstance(module, Experts)}
    return {on_disk: name for name, on_disk in disk_names(model).items() if name.rsplit(".", 2)[0] in owners}


def linear_name(model: PreTrainedModel, names: Names, experts: Mapping[str, str], linear: str) -> str:
    """The module that a packed linear, named as on disk, stands for."""
    if linear in experts:
        return experts[linear]
    target = names.in_model(f"{linear}.weight")
    if target is not None and not names.merged(f"{linear}.weight"):
        return target.removesuffix(".weight")
    return linear


def replace_linear(model: nn.Module, name: str, linear: nn.Module) -> None:
    """Put another linear in the place of a dense one. UserError when there's none of its size under that name."""
    try:
        replaced = model.get_submodule(name)
    except AttributeError:
        raise UserError(f"{name} is not a module of {type(model).__name__}") from None
    if isinstance(replaced, Conv1D):
        wanted = (replaced.weight.shape[1], replaced.weight.shape[0])
    elif isinstance(replaced, nn.Linear):
        wanted = (replaced.out_features, replaced.in_features)
    else:
        raise UserError(f"{name} is a {type(replaced).__name__}, not a linear layer")
    if wanted != (linear.out_features, linear.in_features):
        found = f"{linear.out_features} x {linear.in_features}"
        raise UserError(f"{name} is {found}, config.json wants {wanted[0]} x {wanted[1]}")
    model.set_submodule(name, linear)
    # A quantized output head is tied to nothing, whatever config.json says.
    getattr(model, "all_tied_weights_keys", {}).pop(f"{name}.weight", None)


def assign(model: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Give a parameter or buffer its value. UserError when the model has none of that name and shape."""
    path, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(path)
        current = getattr(module, leaf)
    except AttributeError:
        raise UserError(f"tensor {name} has no place in {type(model).__name__}") from None
    if current.shape != tensor.shape:
        raise UserError(f"{name} is {list(tensor.shape)}, config.json wants {list(current.shape)}")
    value = tensor.to(dtype) if tensor.is_floating_point() else tensor
    setattr(module, leaf, nn.Parameter(value, False) if leaf in module._parameters else value)


def refuse_missing(model: nn.Module) -> None:
    """Raise UserError when a parameter got no value."""
    missing = sorted(name for name, tensor in model.named_parameters() if tensor.is_meta)
    if missing:
        raise UserError(f"{len(missing)} tensors are missing, first {missing[0]}")
