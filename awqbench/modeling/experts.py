"""Mixtures of experts as plain linears, in place of the fused weights that transformers 5 keeps."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from awqbench.modeling.fused import FusedLayout, common_gating, fused_layout

# What the two forwards may differ by, as a share of the output: they add the experts' outputs in different orders.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


class Expert(nn.Module):
    """One expert: down(act(gate(x)) * up(x)), or down(act(up(x))) where the architecture has no gate."""

    def __init__(self, gating: _Gating, linears: dict[str, nn.Linear]) -> None:
        super().__init__()
        self.gating = gating
        for name, linear in linears.items():
            self.add_module(name, linear)

    @property
    def readers(self) -> tuple[str, ...]:
        """The linears that read the expert's input."""
        return self.gating.layout.readers

    def forward(self, hidden: Tensor) -> Tensor:
        """The expert's output for its tokens [tokens, width]."""
        inner = self.gating(*(getattr(self, name)(hidden) for name in self.readers))
        return cast(Tensor, cast(nn.Module, self.down_proj)(inner))


class Experts(nn.ModuleList):
    """The experts of one layer, called as transformers calls its fused ones."""

    def __init__(self, experts: list[Expert], layout: FusedLayout) -> None:
        super().__init__(experts)
        self.layout = layout

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The weighted sum of each token's experts.

        `hidden` [tokens, width]; `top_k_index` and `top_k_weights` [tokens, k]. An index that is no expert's counts as
        none. Only experts that some token chose run.
        """
        chosen = top_k_index.flatten()
        order = chosen.argsort(stable=True)
        tokens, weights = order // top_k_index.shape[1], top_k_weights.flatten()[order, None]
        output, start = torch.zeros_like(hidden), 0
        for expert, count in zip(self, chosen.bincount(minlength=len(self)).tolist(), strict=False):
            if count:
                rows = tokens[start : start + count]
                part = expert(hidden[rows]) * weights[start : start + count]
                output.index_add_(0, rows, part.to(output.dtype))
            start += count
        return output


def unfuse_experts(module: nn.Module) -> list[str]:
    """Replace, in place, fused experts below `module` by `Experts` of linears that are views of the fused weights.

    Works on the meta device too. Where the weights are real the outputs of both are compared. Fused experts of an
    unknown layout, or with parameters of their own beside the known ones, stay as they are.

    Returns:
        The names of the modules replaced, in order; their linears are `<name>.<expert>.gate_proj|up_proj|down_proj`.
    """
    replaced = []
    for name, fused in list(module.named_modules()):
        layout = fused_layout(fused)
        if name and layout is not None:
            experts = _unfused(fused, layout)
            if cast(Tensor, fused.down_proj).is_meta or _same(fused, experts):
                module.set_submodule(name, experts)
                replaced.append(name)
    return replaced


def disk_names(model: PreTrainedModel) -> dict[str, str]:
    """The name on disk of each linear of an expert, by its module's name: `...mlp.experts.0.gate_proj` to
    `...block_sparse_moe.experts.0.w1` in a Mixtral.

    No table says so: tagged tensors, one number for each expert's part of a fused weight, are sent through
    transformers' own conversion to the names it saves, and a name is where a number comes out. Experts that the files
    hold fused have no entries. `model` may lie on the meta device, with its experts unfused or not.
    """
    tags: list[str] = []
    state: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        layout = module.layout if isinstance(module, Experts) else fused_layout(module)
        if layout is not None:
            count = len(module) if isinstance(module, Experts) else len(module.get_parameter("down_proj"))
            state[f"{name}.{layout.first}"] = _tagged(tags, name, layout, layout.readers, count)
            state[f"{name}.down_proj"] = _tagged(tags, name, layout, ("down_proj",), count)
    names = {}
    for name, tensor in revert_weight_conversion(model, state).items():
        if tensor.unique().numel() == 1:
            names[tags[int(tensor.flatten()[0])]] = name.removesuffix(".weight")
    return names if len(names) == len(tags) else {}


class _Gating:
    """How an expert joins its gate and up: the fused module's own way, without its weights."""

    def __init__(self, fused: nn.Module, layout: FusedLayout) -> None:
        self.layout = layout
        self._plain = common_gating(fused)
        self._module: Any = copy.copy(fused)
        self._module._parameters = {}

    def __call__(self, *projected: Tensor) -> Tensor:
        if not self.layout.gated:
            return cast(Tensor, self._module.act_fn(*projected))
        if self._plain:
            gate, up = projected
            return cast(Tensor, self._module.act_fn(gate) * up)
        together = self.layout.concatenated
        joined = torch.cat(projected, -1) if together else torch.stack(projected, -1).flatten(-2)
        return cast(Tensor, self._module._apply_gate(joined))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Gating:
        return self  # it holds no weights


def _unfused(fused: nn.Module, layout: FusedLayout) -> Experts:
    gating = _Gating(fused, layout)
    experts = []
    for index in range(len(cast(Tensor, fused.down_proj))):
        weight, bias = _part(fused, layout, layout.first, index)
        linears = {
            name: _linear(weight[rows], None if bias is None else bias[rows])
            for name, rows in layout.rows(len(weight)).items()
        }
        linears["down_proj"] = _linear(*_part(fused, layout, "down_proj", index))
        experts.append(Expert(gating, linears))
    return Experts(experts, layout)


def _part(fused: nn.Module, layout: FusedLayout, name: str, index: int) -> tuple[Tensor, Tensor | None]:
    """An expert's weight [out, in] and bias."""
    weight = cast(Tensor, getattr(fused, name)).detach()[index]
    bias = cast(Tensor, getattr(fused, f"{name}_bias")).detach()[index] if layout.biased else None
    return (weight.T if layout.transposed else weight), bias


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


@torch.no_grad()
def _same(fused: nn.Module, experts: Experts) -> bool:
    """Whether both give one output for a few random tokens, which leave some experts without any."""
    weight = cast(Tensor, fused.down_proj)
    generator = torch.Generator().manual_seed(0)
    width = cast(nn.Linear, cast(Expert, experts[0]).down_proj).out_features
    hidden = torch.randn(4, width, generator=generator).to(weight)
    index = torch.rand(4, len(experts), generator=generator).argsort(1)[:, :2].to(weight.device)
    weights = torch.rand(index.shape, generator=generator).to(weight)
    try:
        expected = fused(hidden, index, weights).double()
    except (RuntimeError, TypeError):
        return False  # called in another way, or not at all
    error = (experts(hidden, index, weights).double() - expected).norm()
    return bool(error <= _TOLERANCE[weight.dtype] * expected.norm())


def _tagged(tags: list[str], name: str, layout: FusedLayout, linears: tuple[str, ...], experts: int) -> Tensor:
    """A fused weight [experts, linears, 1] of numbers, each of which stands in `tags` for a linear's name."""
    start = len(tags)
    tags += [f"{name}.{expert}.{linear}" for expert in range(experts) for linear in linears]
    values = torch.arange(start, len(tags), dtype=torch.float64).view(experts, len(linears), 1)
    return values.transpose(1, 2) if layout.transposed else values
