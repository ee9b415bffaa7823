"""One full-precision pass over a block's calibration inputs: what its linears receive, and what the block puts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from awqbench.quantization.blocks import linear_at
from awqbench.quantization.calibrate import BlockCall
from awqbench.quantization.groups import Group
from awqbench.quantization.losses import ModuleCalls
from awqbench.quantization.moments import Moments, pooled


@dataclass(frozen=True, slots=True)
class Share:
    """Linears that receive literally the same rows of their group's tensor, and the moments of those rows."""

    names: tuple[str, ...]
    moments: Moments


@dataclass(slots=True)
class Watched:
    """A group with what was seen of it."""

    group: Group
    shares: list[Share]
    calls: ModuleCalls = field(default_factory=ModuleCalls)

    @property
    def tokens(self) -> Moments:
        """Moments of all rows that any of the group's linears received."""
        return self.shares[0].moments if len(self.shares) == 1 else pooled([share.moments for share in self.shares])


def watch(
    block: nn.Module,
    groups: Sequence[Group],
    call: BlockCall,
    hidden: Sequence[Tensor],
    emit: Callable[[Tensor], None],
    sample: int,
) -> list[Watched]:
    """Run every batch of `hidden` [batch, tokens, width] through the block and `emit` its output.

    How the groups' inspected modules were called is kept for evenly spaced batches of about `sample` tokens in all, one
    batch at least; for none if `sample` is 0.
    """
    watched = []
    for group in groups:
        sets = group.shares or (group.readers,)
        shares = [Share(names, _moments(linear_at(block, names[0]))) for names in sets]
        watched.append(Watched(group, shares))
    handles = []
    for each in watched:
        for share in each.shares:

            def add(_: nn.Module, args: tuple[Any, ...], moments: Moments = share.moments) -> None:
                moments.add(args[0])

            handles.append(linear_at(block, share.names[0]).register_forward_pre_hook(add))
    try:
        for index in range(len(hidden)):
            state = hidden[index]
            keep = sample and index % -(-len(hidden) * state.shape[0] * state.shape[1] // sample) == 0
            recorders = _recorders(block, watched) if keep else []
            try:
                emit(call(block, state))
            finally:
                for recorder in recorders:
                    recorder.remove()
    finally:
        for handle in handles:
            handle.remove()
    return watched


def _recorders(block: nn.Module, watched: Sequence[Watched]) -> list[Any]:
    return [
        block.get_submodule(each.group.inspected).register_forward_hook(each.calls.record, with_kwargs=True)
        for each in watched
        if each.group.absorber is not None and each.group.inspected not in each.group.readers
    ]


def _moments(linear: nn.Linear) -> Moments:
    return Moments(linear.in_features, linear.weight.device)
