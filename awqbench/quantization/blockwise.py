"""Quantize one decoder block: scale its groups, clip, round, and account for what it cost."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from awqbench.quantization.absorb import scale_inputs
from awqbench.quantization.blocks import linear_at
from awqbench.quantization.calibrate import BlockCall
from awqbench.quantization.clip import block_grams, clip_weight
from awqbench.quantization.groups import NOT_FINITE, Group, find_groups, shared_inputs
from awqbench.quantization.losses import ModuleCalls, ModuleLoss, Moments, OutputLoss
from awqbench.quantization.rounding import fake_quantize, quantize
from awqbench.quantization.search import Loss, Scaling, search_scale
from awqbench.quantization.tensor import QuantizedTensor

log = logging.getLogger(__name__)

Method = Literal["rtn", "awq"]
Search = Literal["module", "gram"]

# The product of queries and keys amplifies a clipped weight's error: the reference implementations leave them alone.
_NEVER_CLIPPED = ("q_", "k_", "qkv", "query", "key", "wqkv", "c_attn")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a block is quantized."""

    method: Method
    bits: int
    group_size: int
    clip: bool
    search: Search
    seed: int


@dataclass(slots=True)
class BlockResult:
    """Codes by the linear's full name, and the rows that the checkpoint's metadata reports."""

    quantized: dict[str, QuantizedTensor] = field(default_factory=dict)
    linears: list[dict[str, Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Block:
    """A decoder block under work. `names` are the linears to quantize, relative to the block called `prefix`."""

    def __init__(self, module: nn.Module, prefix: str, names: Sequence[str], recipe: Recipe) -> None:
        self.module, self.prefix, self.names, self.recipe = module, prefix, names, recipe
        self.result = BlockResult()
        # By linear: how its stored weight differs from the original, per output row and per input column.
        self._rows: dict[str, Tensor] = {}
        self._columns: dict[str, Tensor] = {}

    @torch.no_grad()
    def round_to_nearest(self) -> BlockResult:
        """No calibration: round every linear as it is."""
        for name in self.names:
            self._round(name, self._linear(name).weight.data, None)
        return self.result

    @torch.no_grad()
    def calibrated(
        self, call: BlockCall, hidden: list[Tensor], stretch: Tensor, stretch_call: BlockCall
    ) -> BlockResult:
        """Quantize with the block's inputs `hidden` [batch, tokens, width], which its full-precision outputs replace.

        `stretch` is a short input, called in its own way, on which groups are found and proved.
        """
        awq = self.recipe.method == "awq"
        if awq:
            groups = find_groups(self.module, stretch_call, stretch, self.names, seed=self.recipe.seed)
        else:
            groups = shared_inputs(self.module, stretch_call, stretch, self.names)
        inputs, calls = self._watch(groups, call, hidden)
        moments = [Moments(each) for each in inputs]
        # Every search sees the original block; only then is anything folded (as the reference implementations do).
        scalings = [self._search(*each) if awq else None for each in zip(groups, inputs, moments, calls, strict=True)]
        originals = {name: self._linear(name).weight.data for name in self.names}
        for name, original in originals.items():
            # A copy to fold into, in float32: scaling in half precision would add an error of its own before rounding.
            self._linear(name).weight.data = original.to(torch.float32, copy=True)
        for group, scaling in zip(groups, scalings, strict=True):
            if scaling is not None and scaling.ratio > 0:
                self._fold(group, scaling)
        for group, each, moment in zip(groups, inputs, moments, strict=True):
            self._round_group(group, each, moment, originals)
        for name in self.names:
            if not any(name in group.readers for group in groups):
                self._warn(f"{self._full(name)}: no calibration token reached it; rounded to nearest")
                self._round(name, originals[name], None)
        return self.result

    def _watch(
        self, groups: Sequence[Group], call: BlockCall, hidden: list[Tensor]
    ) -> tuple[list[Tensor], list[ModuleCalls]]:
        """Run all batches; each group's input [tokens, in] float32, and how its inspected module was called."""
        inputs: list[list[Tensor]] = [[] for _ in groups]
        calls = [ModuleCalls() for _ in groups]
        handles = []
        for group, seen, record in zip(groups, inputs, calls, strict=True):

            def keep(_: nn.Module, args: tuple[Any, ...], seen: list[Tensor] = seen) -> None:
                seen.append(args[0].reshape(-1, args[0].shape[-1]).float())

            handles.append(self._linear(group.readers[0]).register_forward_pre_hook(keep))
            if group.absorber is not None:
                inspected = self.module.get_submodule(group.inspected)
                handles.append(inspected.register_forward_pre_hook(record.record, with_kwargs=True))
        try:
            for index, state in enumerate(hidden):
                hidden[index] = call(self.module, state)
        finally:
            for handle in handles:
                handle.remove()
        return [torch.cat(each) for each in inputs], calls

    def _search(self, group: Group, inputs: Tensor, moments: Moments, calls: ModuleCalls) -> Scaling | None:
        """The group's scaling, or None where it has none; reported either way."""
        scaling = None
        names = ", ".join(self._full(name) for name in group.readers)
        status, reason = "left alone", group.reason
        if reason == NOT_FINITE:
            self._warn(f"{names}: {reason}; not scaled")
        if group.absorber is not None:
            linears = [self._linear(name) for name in group.readers]
            weights = [linear.weight.data for linear in linears]
            judge: Loss = OutputLoss(weights, moments)
            if self.recipe.search == "module" and group.inspected not in group.readers:
                judge = ModuleLoss(self.module.get_submodule(group.inspected), calls, linears)
            magnitude = inputs.abs().mean(dim=0)
            scaling = search_scale(weights, magnitude, judge, self.recipe.bits, self.recipe.group_size)
            if scaling is None:
                status, reason = "skipped", "no trial had a finite loss"
                self._warn(f"{names}: {reason}; not scaled")
            else:
                status = "scaled" if scaling.ratio > 0 else "best unscaled"
        self.result.groups.append(
            {
                "linears": [self._full(name) for name in group.readers],
                "absorber": self._full(group.absorber.module) if group.absorber else None,
                "status": status,
                "reason": reason,
                "ratio": scaling.ratio if scaling else None,
                "loss_unscaled": _ratio(scaling.loss_before, 1) if scaling else None,
                "loss": scaling.loss if scaling else None,
            }
        )
        return scaling

    def _fold(self, group: Group, scaling: Scaling) -> None:
        assert group.absorber is not None
        group.absorber.divide(self.module, scaling.scale)
        scale_inputs(self.module, group.readers, scaling.scale)
        for name in group.readers:
            self._columns[name] = scaling.scale
        if group.absorber.form == "rows":
            self._rows[group.absorber.module] = scaling.scale

    def _round_group(self, group: Group, inputs: Tensor, moments: Moments, originals: dict[str, Tensor]) -> None:
        scale = self._columns.get(group.readers[0])
        grams = None
        for name in group.readers:
            weight = self._linear(name).weight.data
            if self.recipe.method == "awq" and self.recipe.clip and not _never_clipped(name):
                if grams is None:
                    grams = block_grams(inputs if scale is None else inputs / scale, self.recipe.group_size)
                weight = clip_weight(weight, grams, self.recipe.bits, self.recipe.group_size)
            self._round(name, originals[name], moments, weight)

    def _round(self, name: str, original: Tensor, moments: Moments | None, weight: Tensor | None = None) -> None:
        """Round `weight`, put its value into the model, and report the error against the original weight."""
        linear = self._linear(name)
        quantized = quantize(original if weight is None else weight, self.recipe.bits, self.recipe.group_size)
        value = quantized.dequantize()
        linear.weight.data = value.to(original.dtype)
        self.result.quantized[self._full(name)] = quantized

        original = original.float()
        if (columns := self._columns.get(name)) is not None:
            value = value / columns
        if (rows := self._rows.get(name)) is not None:
            value = torch.cat([value[: -rows.numel()], value[-rows.numel() :] * rows.unsqueeze(1)])
        error = value - original
        nearest = fake_quantize(original, self.recipe.bits, self.recipe.group_size).sub_(original)
        row: dict[str, Any] = {
            "name": self._full(name),
            "shape": list(original.shape),
            "tokens": moments.tokens if moments else 0,
            "weight_error_rtn": _ratio(nearest.norm(), original.norm()),
            "weight_error": _ratio(error.norm(), original.norm()),
            "output_error_rtn": None,
            "output_error": None,
            "output_mse": None,
        }
        if moments is not None:
            signal, noise = moments.energy(original), moments.energy(error)
            row["output_error_rtn"] = _ratio(moments.energy(nearest), signal, root=True)
            row["output_error"] = _ratio(noise, signal, root=True)
            row["output_mse"] = _ratio(noise, moments.tokens * original.shape[0])
        self.result.linears.append(row)

    def _warn(self, message: str) -> None:
        log.warning("%s", message)
        self.result.warnings.append(message)

    def _linear(self, name: str) -> nn.Linear:
        return linear_at(self.module, name)

    def _full(self, name: str) -> str:
        return f"{self.prefix}.{name}"


def _never_clipped(name: str) -> bool:
    return name.rpartition(".")[2].lower().startswith(_NEVER_CLIPPED)


def _ratio(part: Tensor | float, whole: Tensor | float, root: bool = False) -> float | None:
    """part / whole, or its square root; None where that is no finite number, so that it can be written as JSON."""
    if not whole:
        return None
    value = float(part) / float(whole)
    value = value**0.5 if root else value
    return value if math.isfinite(value) else None
