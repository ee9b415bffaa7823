"""The full-precision weights as the checkpoint would hold them, had nothing been rounded.

AWQ multiplies the input channels of a linear by a scale and divides what makes them (a norm, or the rows of a linear
before it) by the same: the model is unchanged, its weights are not. Held against the reference's own weights every
linear would look far off. So the scales are found again: from the norms, which are stored as they are, exactly; for a
linear's rows by least squares from both sides, which an error of the codes moves by little (0.4 % for a relative weight
error of 10 % and 576 rows), and consistently: row and column are moved alike, so that all weights together still are
the reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from awqbench.errors import UserError
from awqbench.quantization.absorb import Absorber
from awqbench.quantization.blocks import find_blocks, linears_of
from awqbench.quantization.calibrate import BlockCall, BlockCalls
from awqbench.quantization.capture import STRETCH_TOKENS
from awqbench.quantization.groups import Group, find_groups

# Norms of two models that differ by less were rounded, not scaled: bfloat16 keeps 8 bits.
_ROUNDED = 2.0**-8
# A tensor outside the quantized linears that is further off than rounding explains.
_FOREIGN = 0.05


@dataclass(slots=True)
class Unrounded:
    """`weights`: by the candidate's parameter names, float32. `scaled`: groups of linears whose scale was undone."""

    weights: dict[str, Tensor]
    scaled: int = 0
    notes: list[str] = field(default_factory=list)


@torch.no_grad()
def unrounded(reference: PreTrainedModel, candidate: PreTrainedModel, ids: Tensor) -> Unrounded:
    """What the candidate's parameters would be without rounding; with all of them it computes what the reference does.

    `ids` [1, tokens] is any text: scale groups are found by watching the reference's blocks at work on its beginning.
    Raises UserError when the two are not the same architecture.
    """
    own = dict(candidate.named_parameters())
    weights = _matching(reference, own)
    found = Unrounded(weights)
    stack, blocks = find_blocks(reference)
    changed = {name for name, tensor in weights.items() if tensor.dim() == 1 and _off(own[name], tensor) > _ROUNDED}
    if any(name.startswith(f"{stack}.") for name in changed):
        for prefix, groups in _groups(reference, stack, list(blocks), ids):
            for group in groups:
                if group.absorber is not None:
                    found.scaled += _undo(group, group.absorber, prefix, weights, own)
    for name, tensor in weights.items():
        linear = isinstance(candidate.get_submodule(name.rpartition(".")[0]), nn.Linear)
        if not linear and (off := _off(own[name], tensor)) > _FOREIGN:
            found.notes.append(f"{name} is {off:.0%} off the reference's, and no scale explains it")
    return found


def _matching(reference: PreTrainedModel, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    held = reference.state_dict()
    weights = {}
    for name, tensor in own.items():
        if name not in held or held[name].shape != tensor.shape:
            told = f"is {list(held[name].shape)} in the reference" if name in held else "is not in the reference"
            raise UserError(f"{name} {list(tensor.shape)} {told}: is the checkpoint made from this model?")
        weights[name] = held[name].float().clone()
    return weights


def _groups(
    reference: PreTrainedModel, stack: str, blocks: list[nn.Module], ids: Tensor
) -> Iterable[tuple[str, list[Group]]]:
    """Every block's scale groups, those by way of values that several heads share among them."""
    stretch = _calls(reference, blocks, ids[:1, :STRETCH_TOKENS])
    single = _calls(reference, blocks, ids[:1, :1])
    for index, (block, (hidden, call), (_, one)) in enumerate(zip(blocks, stretch, single, strict=True)):
        linears = list(linears_of(block, ""))
        yield f"{stack}.{index}", find_groups(block, BlockCalls(call, call, one), hidden, linears, grouped_queries=True)


def _calls(model: PreTrainedModel, blocks: list[nn.Module], ids: Tensor) -> list[tuple[Tensor, BlockCall]]:
    """Each block's input, and how it is called beside it."""
    seen: list[tuple[Tensor, BlockCall]] = []

    def note(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        kwargs = dict(kwargs)
        hidden, args = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
        assert isinstance(hidden, Tensor)
        seen.append((hidden, BlockCall(args, kwargs)))

    handles = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks]
    try:
        model(input_ids=ids.to(model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _undo(group: Group, absorber: Absorber, prefix: str, weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Fold the group's scale into `weights`; whether it has one."""
    readers = [f"{prefix}.{name}.weight" for name in (*group.readers, *group.also)]
    maker = f"{prefix}.{absorber.module}"
    if absorber.form == "rows":
        scale = _from_both_sides(absorber, f"{maker}.weight", readers, weights, own)
    else:
        gain, changed = weights[f"{maker}.weight"], own[f"{maker}.weight"].float()
        one = 1.0 if absorber.form == "1 + weight" else 0.0
        scale = (gain + one) / (changed + one)
        scale = torch.where(scale.isfinite() & (scale != 0), scale, 1.0)
    if bool((scale - 1).abs().max() <= _ROUNDED):
        return False
    for name in readers:
        weights[name] = weights[name] * scale
    for leaf in ("weight", "bias"):
        if (name := f"{maker}.{leaf}") in weights:
            tensor = weights[name]
            divisor = absorber.row_scale(scale, tensor.shape[0]).view(-1, *[1] * (tensor.dim() - 1))
            one = 1.0 if absorber.form == "1 + weight" and leaf == "weight" else 0.0
            weights[name] = (tensor + one) / divisor - one
    return True


def _from_both_sides(
    absorber: Absorber, maker: str, readers: list[str], weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Tensor:
    """The scale of each channel: what readers' columns were multiplied by, and rows that feed them divided by.

    Two least-squares estimates, joined by their precision in the logarithm. A clipped weight makes both sides smaller,
    which pulls the two apart: together they hold the middle.
    """
    multiplied, spread = _fit(*(torch.cat([source[name].float() for name in readers]).T for source in (own, weights)))
    divided, spread_rows = _fit(own[maker].float(), weights[maker])
    rows = torch.arange(len(divided))[-len(multiplied) :] if absorber.channels is None else absorber.channels
    rows = rows.to(divided.device)
    pulls = (multiplied.clamp_min(1e-6).log() / spread - divided[rows].clamp_min(1e-6).log() / spread_rows[rows]) / (
        1 / spread + 1 / spread_rows[rows]
    )
    return absorber.share(pulls).exp()


def _fit(changed: Tensor, original: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the factor a that minimises |changed - a original|, and its squared relative error."""
    energy = original.square().sum(1).clamp_min(1e-30)
    factor = (changed * original).sum(1) / energy
    left = (changed - factor.unsqueeze(1) * original).square().sum(1)
    return factor, (left / energy / factor.square().clamp_min(1e-12) / original.shape[1]).clamp_min(1e-12)


def _off(tensor: Tensor, expected: Tensor) -> float:
    """Relative distance."""
    return float((tensor.float() - expected).norm() / expected.norm().clamp_min(1e-30))
