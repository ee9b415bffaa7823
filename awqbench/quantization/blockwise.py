"""Quantize one decoder block: scale its groups, clip, round, and account for what it cost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from awqbench.quantization.absorb import scale_inputs
from awqbench.quantization.accounting import linear_row, ratio
from awqbench.quantization.blocks import linear_at
from awqbench.quantization.calibrate import BlockCalls
from awqbench.quantization.groups import NOT_FINITE, Group, find_groups, shared_inputs
from awqbench.quantization.losses import ModuleLoss, OutputLoss
from awqbench.quantization.moments import Moments
from awqbench.quantization.overrides import Overrides
from awqbench.quantization.recipe import Recipe
from awqbench.quantization.round_share import round_share
from awqbench.quantization.rounding import fake_quantize, quantize
from awqbench.quantization.search import RATIOS, Loss, Scaling, finalists, sampled, search_scale
from awqbench.quantization.sensitivity import block_errors
from awqbench.quantization.tensor import QuantizedTensor
from awqbench.quantization.watch import Watched, watch

log = logging.getLogger(__name__)

JUDGED_TOKENS = {"module": 4096, "gram": 256}
"""How much of the calibration text, at most, modules that are more than linears are judged on (whole batches)."""


@dataclass(slots=True)
class BlockResult:
    """Codes by the linear's full name, and the rows that the checkpoint's metadata reports.

    `folded`, filled where sensitivity is asked for: each linear's weight [out, in] float32 with all scales folded in,
    neither clipped nor rounded: what stands in its place if it is kept in full precision.
    """

    quantized: dict[str, QuantizedTensor] = field(default_factory=dict)
    linears: list[dict[str, Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    folded: dict[str, Tensor] = field(default_factory=dict)


class Block:
    """A decoder block under work. `names` are the linears to quantize, relative to the block called `prefix`."""

    def __init__(
        self,
        module: nn.Module,
        prefix: str,
        names: Sequence[str],
        recipe: Recipe,
        *,
        overrides: Overrides | None = None,
        sensitivity: bool = False,
    ) -> None:
        self.module, self.prefix, self.names, self.recipe = module, prefix, names, recipe
        self.overrides, self.sensitivity = overrides, sensitivity
        self.result = BlockResult()
        # By linear: how its stored weight differs from the original, per output row and per input column.
        self._rows: dict[str, Tensor] = {}
        self._columns: dict[str, Tensor] = {}

    @torch.no_grad()
    def round_to_nearest(self) -> BlockResult:
        """No calibration: round every linear as it is."""
        for name in self.names:
            original = self._linear(name).weight.data
            self._store(name, self._nearest(original), original, 0, None)
        return self.result

    @torch.no_grad()
    def calibrated(self, calls: BlockCalls, hidden: Sequence[Tensor], emit: Callable[[Tensor], None]) -> BlockResult:
        """Quantize with the block's inputs `hidden`, batches [batch, tokens, width], each read when it is needed.

        `emit` gets the block's full-precision output for every batch, in order. The module is left with the weights
        that the codes stand for, and with the scales folded into its other operations.
        """
        recipe = self.recipe
        if recipe.scales:
            groups = find_groups(
                self.module, calls, hidden[0], self.names,
                seed=recipe.seed, overrides=self.overrides, grouped_queries=recipe.grouped_queries,
            )  # fmt: skip
        else:
            groups = shared_inputs(self.module, calls, hidden[0], self.names)
        sample = JUDGED_TOKENS[recipe.search] if recipe.scales else 0
        watched = watch(self.module, groups, calls.full, hidden, emit, sample)
        originals = {name: self._linear(name).weight.data for name in self.names}
        # Every search sees the original block; only then is anything folded (as the reference implementations do).
        scalings = [self._search(each) if recipe.scales else None for each in watched]
        for name, original in originals.items():
            # A copy to fold into, in float32: scaling in half precision would add an error of its own before rounding.
            self._linear(name).weight.data = original.to(torch.float32, copy=True)
        for each, scaling in zip(watched, scalings, strict=True):
            if scaling is not None and scaling.ratio > 0:
                self._fold(each.group, scaling.scale)
        folded = {name: self._linear(name).weight.data for name in self.names}
        for each in watched:
            self._round_group(each, originals)
            each.shares.clear()  # its Gram matrices
        for name in self.names:
            if self._full(name) not in self.result.quantized:
                self._warn(f"{self._full(name)}: no calibration token reached it; rounded to nearest")
                self._store(name, self._nearest(folded[name]), originals[name], 0, None)
        if self.sensitivity:
            self.result.folded = {self._full(name): weight for name, weight in folded.items()}
            errors = block_errors(self.module, calls, hidden, folded, originals)
            for row in self.result.linears:
                row["block_error"] = errors[row["name"].removeprefix(f"{self.prefix}.")]
        return self.result

    def _search(self, each: Watched) -> Scaling | None:
        """The group's scaling, or None where it has none; reported either way."""
        group, moments = each.group, each.tokens
        scaling = None
        names = ", ".join(self._full(name) for name in group.readers)
        status, reason = "left alone", group.reason
        if reason == NOT_FINITE:
            self._warn(f"{names}: {reason}; not scaled")
        if group.absorber is not None and moments.tokens == 0:
            reason = "no calibration token reached it"
        elif group.absorber is not None:
            scaling = self._best_scale(each, group.absorber.share(moments.magnitude))
            if scaling is None:
                status, reason = "skipped", "no trial had a finite loss"
                self._warn(f"{names}: {reason}; not scaled")
            else:
                status = "scaled" if scaling.ratio > 0 else "best unscaled"
        self.result.groups.append(
            {
                "linears": [self._full(name) for name in group.readers],
                "scaled_along": [self._full(name) for name in group.also],
                "absorber": self._full(group.absorber.module) if group.absorber else None,
                "status": status,
                "reason": reason,
                "ratio": scaling.ratio if scaling else None,
                "loss_unscaled": ratio(scaling.loss_before, 1) if scaling else None,
                "loss": scaling.loss if scaling else None,
            }
        )
        return scaling

    def _best_scale(self, each: Watched, magnitude: Tensor) -> Scaling | None:
        group, recipe = each.group, self.recipe
        linears = [self._linear(name) for name in group.readers]
        weights = [linear.weight.data for linear in linears]
        own = {name: share.moments for share in each.shares for name in share.names}
        moments = [own[name] for name in group.readers]
        rounding = (recipe.bits, recipe.group(magnitude.numel()), recipe.symmetric)
        ratios = RATIOS if recipe.search == "module" else finalists(weights, magnitude, moments, *rounding)
        judge: Loss
        if each.calls.calls:
            judge = ModuleLoss(self.module.get_submodule(group.inspected), each.calls, linears)
        else:
            if recipe.search == "gram":
                weights = [sampled(weight) for weight in weights]
            judge = OutputLoss(weights, moments)
        return search_scale(weights, magnitude, judge, *rounding, ratios)

    def _fold(self, group: Group, scale: Tensor) -> None:
        assert group.absorber is not None
        absorber = group.absorber
        for name in (absorber.module, *group.also):
            self._own(name)
        absorber.divide(self.module, scale)
        scale_inputs(self.module, (*group.readers, *group.also), scale)
        for name in group.readers:
            self._columns[name] = scale
        if absorber.form == "rows":
            out = self._linear(absorber.module).out_features
            self._rows[absorber.module] = absorber.row_scale(scale, out)

    def _own(self, name: str) -> None:
        """Give a module parameters of its own: those of the model may be mapped files or views that others share."""
        for parameter in self.module.get_submodule(name).parameters(recurse=False):
            parameter.data = parameter.data.clone()

    def _round_group(self, each: Watched, originals: dict[str, Tensor]) -> None:
        fallback: Moments | None = None
        for share in each.shares:
            moments = share.moments
            if not moments.tokens:
                # An expert without tokens is rounded for the tokens that the others received.
                fallback = fallback or each.tokens
                moments = fallback
            if not moments.tokens:
                continue
            names = ", ".join(self._full(name) for name in share.names)
            if moments is fallback:
                self._warn(f"{names}: no calibration token reached them; rounded for those of the whole group")
            if not moments.finite:
                self._warn(f"{names}: their inputs are not finite; rounded to nearest")
                rounded = {name: self._nearest(self._linear(name).weight.data) for name in share.names}
            else:
                scale = self._columns.get(share.names[0])
                weights = {name: self._linear(name).weight.data for name in share.names}
                scaled = moments if scale is None else moments.scaled(scale)
                rounded, warnings = round_share(weights, scaled, self.recipe)
                for warning in warnings:
                    self._warn(f"{names}: {warning}")
            for name in share.names:
                self._store(name, rounded[name], originals[name], share.moments.tokens, moments)

    def _nearest(self, weight: Tensor) -> QuantizedTensor:
        return quantize(weight, self.recipe.bits, self.recipe.group(weight.shape[1]), self.recipe.symmetric)

    def _store(
        self, name: str, quantized: QuantizedTensor, original: Tensor, tokens: int, moments: Moments | None
    ) -> None:
        """Put the codes' value into the model, and report its error against the original weight."""
        value = quantized.dequantize()
        self._linear(name).weight.data = value.to(original.dtype)
        self.result.quantized[self._full(name)] = quantized

        original = original.float()
        if (columns := self._columns.get(name)) is not None:
            value = value / columns
        if (rows := self._rows.get(name)) is not None:
            value = value * rows.unsqueeze(1)
        recipe = self.recipe
        nearest = fake_quantize(original, recipe.bits, recipe.group(original.shape[1]), recipe.symmetric)
        nearest.sub_(original)
        self.result.linears.append(
            linear_row(self._full(name), original, value - original, nearest, recipe.bits, tokens, moments)
        )

    def _warn(self, message: str) -> None:
        log.warning("%s", message)
        self.result.warnings.append(message)

    def _linear(self, name: str) -> nn.Linear:
        return linear_at(self.module, name)

    def _full(self, name: str) -> str:
        return f"{self.prefix}.{name}"
