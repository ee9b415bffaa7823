"""Scale groups: the linears that share one smoothing scale, with the operation that absorbs its inverse."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from awqbench.errors import UserError
from awqbench.modeling.experts import Expert, Experts
from awqbench.quantization.absorb import Absorber, input_weight
from awqbench.quantization.blocks import is_linear
from awqbench.quantization.calibrate import BlockCall, BlockCalls
from awqbench.quantization.capture import STRETCH_TOKENS
from awqbench.quantization.overrides import GroupOverride, Overrides
from awqbench.quantization.prove import Prover, cast_call
from awqbench.quantization.rowmap import RowMapper, as_absorber
from awqbench.quantization.trace import Reading, Trace, trace_block

UNPROVED = "nothing absorbs a scale without changing the block's output"
NOT_FINITE = "the block's output is not finite"
REPEATED = "one value row feeds several of its channels, and smoothing grouped queries is switched off"


@dataclass(frozen=True, slots=True)
class Group:
    """Linears of a block that read the same tensor; all names are relative to the block.

    `readers` are those to be quantized, `also` the modules that read it in full precision (a router, a linear that is
    kept): when the group is scaled, their weights are too. `shares` parts the readers into sets that see the same rows
    of the tensor: one set, but for a mixture of experts, where each expert sees the tokens routed to it.

    `absorber` is None where no operation was proved to absorb a scale; `reason` then says so. `inspected` is the module
    whose output the scale search judges ("" is the block itself).
    """

    readers: tuple[str, ...]
    absorber: Absorber | None
    inspected: str
    reason: str = ""
    also: tuple[str, ...] = ()
    shares: tuple[tuple[str, ...], ...] = ()


def find_groups(
    block: nn.Module,
    calls: BlockCalls,
    hidden: Tensor,
    linears: Collection[str],
    *,
    seed: int = 0,
    overrides: Overrides | None = None,
    grouped_queries: bool = False,
) -> list[Group]:
    """The block's scale groups, each absorber proved on the beginning of a calibration batch.

    Args:
        block: a decoder block with its weights, experts unfused; left as it is.
        calls: how it is called.
        hidden: inputs [batch, tokens, width] that `calls.full` takes; the first window's first tokens are used.
        linears: the linears to be quantized, relative to the block.
        seed: of the random scales that folds are proved with.
        overrides: groups that the user declares.
        grouped_queries: whether values that feed several query heads each may absorb a scale, one for all these heads.

    Raises:
        UserError: for an override whose absorber the block does not have.
    """
    finder = _Finder(block, calls, hidden, linears, seed, grouped_queries)
    return list(finder.groups(overrides or Overrides()))


def shared_inputs(block: nn.Module, calls: BlockCalls, hidden: Tensor, linears: Collection[str]) -> list[Group]:
    """The same sets of linears with no absorber looked for: for methods that scale nothing."""
    trace = trace_block(block, calls.stretch, hidden[:1, :STRETCH_TOKENS])
    groups = [_group(reading, linears) for reading in trace.readings]
    for name in trace.experts:
        groups += [_group(Reading([f"{prefix}.down_proj"]), linears) for prefix, _ in _experts(block, name)]
    return [group for group in groups if group.readers]


class _Finder:
    def __init__(
        self,
        block: nn.Module,
        calls: BlockCalls,
        hidden: Tensor,
        linears: Collection[str],
        seed: int,
        grouped_queries: bool,
    ) -> None:
        stretch = hidden[:1, :STRETCH_TOKENS]
        self.block, self.linears, self.seed, self.grouped_queries = block, linears, seed, grouped_queries
        self.trace: Trace = trace_block(block, calls.stretch, stretch)
        self.prover = Prover(block, calls.stretch, stretch, seed)
        single = cast_call(calls.single, self.prover.dtype)
        self.mapper = RowMapper(self.prover.block, single, self.prover.hidden[0])

    def groups(self, overrides: Overrides) -> Iterator[Group]:
        for reading, asked in overrides.regroup(self.trace.readings):
            group = _group(reading, self.linears)
            if group.readers:
                yield self._absorbed(group, reading, asked)
        for name, tokens in self.trace.experts.items():
            for prefix, expert in _experts(self.block, name):
                yield from self._within(prefix, expert, tokens)

    def _absorbed(self, group: Group, reading: Reading, asked: GroupOverride | None) -> Group:
        """The group with its absorber, or with the reason why it has none."""
        reason = UNPROVED if self.prover.finite else NOT_FINITE
        for absorber in self._asked(reading, asked) if asked else self._candidates(reading):
            if absorber.repeats and not self.grouped_queries and not asked:
                reason = REPEATED
            elif (asked and not asked.proved) or self.prover.preserves(absorber, (*group.readers, *group.also)):
                return replace(group, absorber=absorber, inspected=_inspected(group.readers, absorber), reason="")
        return replace(group, reason=reason)

    def _asked(self, reading: Reading, asked: GroupOverride) -> Iterator[Absorber]:
        """The absorber that the user names; which of its rows feeds which channel is found where it can be."""
        names = [name for name, _ in self.block.named_modules()]
        if asked.absorber not in names:
            raise UserError(f"overrides: a block with {reading.names[0]} has no module {asked.absorber!r}")
        widths = {name: input_weight(self.block, name).shape[1] for name in reading.names}
        width = widths[reading.names[0]]
        if len(set(widths.values())) > 1:
            raise UserError(f"overrides: no group reads one tensor whose readers have {widths} inputs")
        channels = min((len(parameter) for parameter in self._own(asked.absorber)), default=0)
        rows = self._from_rows(asked.absorber, reading) if channels and asked.form == "rows" else None
        if rows is None and channels < width:
            raise UserError(
                f"overrides: {asked.absorber!r} has {channels} channels to divide, {reading.names[0]} reads {width}"
                " (allowed: a norm or a linear that makes what is read)"
            )
        yield rows or Absorber(asked.absorber, asked.form)

    def _candidates(self, reading: Reading) -> Iterator[Absorber]:
        """What might absorb a scale of the tensor, likeliest first.

        That is a norm or a linear that made it. Where no module with weights did, it was computed from other outputs
        (an attention's mix of values, act(gate) * up, relu(fc1)): linears that ran earlier.
        """
        if not self.prover.finite:
            return
        weighted = [name for name in reading.makers if any(True for _ in self._own(name))]
        width = input_weight(self.block, reading.names[0]).shape[1]
        for name in weighted:
            if all(parameter.dim() == 1 and parameter.numel() == width for parameter in self._own(name)):
                yield Absorber(name, "weight")
                yield Absorber(name, "1 + weight")
        linears = [name for name in weighted if self._is_linear(name)]
        for name in linears if weighted else self._earlier(reading):
            if (absorber := self._from_rows(name, reading)) is not None:
                yield absorber

    def _from_rows(self, candidate: str, reading: Reading) -> Absorber | None:
        """The rows of a linear that feed the tensor's channels, if they do."""
        reader = next((name for name in reading.whole if self._is_linear(name)), None)
        channels = self.mapper.find(candidate, reader) if reader else None
        if channels is None:
            return None
        return as_absorber(candidate, channels, input_weight(self.block, candidate).shape[0])

    def _earlier(self, reading: Reading) -> list[str]:
        """Linears that ran before a tensor's readers in the same part of the block, the nearest first."""
        order = self.trace.order
        reader = next((name for name in order if name in reading.whole), None)
        if reader is None:
            return []
        parent, top = reader.rpartition(".")[0], reader.partition(".")[0]
        ran = order[: order.index(reader)][::-1]
        near = (name for name in ran if name.partition(".")[0] == top or not parent)
        return sorted(near, key=lambda name: name.rpartition(".")[0] != parent)

    def _within(self, prefix: str, expert: Expert, tokens: Tensor) -> Iterator[Group]:
        """The groups inside one expert, proved on it alone, whether or not a token was routed to it."""
        plain = BlockCall((), {})
        linears = [name.removeprefix(f"{prefix}.") for name in self.linears if name.startswith(f"{prefix}.")]
        calls = BlockCalls(plain, plain, plain)
        for group in find_groups(expert, calls, tokens.unsqueeze(0), linears, seed=self.seed):
            if not set(group.readers) & set(expert.readers):
                yield _prefixed(group, prefix)

    def _own(self, name: str) -> Iterator[nn.Parameter]:
        return self.block.get_submodule(name).parameters(recurse=False)

    def _is_linear(self, name: str) -> bool:
        return is_linear(self.block.get_submodule(name))


def _group(reading: Reading, linears: Collection[str]) -> Group:
    sets = [tuple(name for name in names if name in linears) for names in (*reading.routed, reading.whole)]
    shares = tuple(names for names in sets if names)
    readers = tuple(name for names in shares for name in names)
    return Group(readers, None, "", "", tuple(name for name in reading.names if name not in linears), shares)


def _prefixed(group: Group, prefix: str) -> Group:
    def full(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{prefix}.{name}" for name in names)

    absorber = group.absorber and replace(group.absorber, module=f"{prefix}.{group.absorber.module}")
    inspected = f"{prefix}.{group.inspected}".rstrip(".") if absorber else ""
    shares = tuple(full(names) for names in group.shares)
    return Group(full(group.readers), absorber, inspected, group.reason, full(group.also), shares)


def _experts(block: nn.Module, name: str) -> Iterator[tuple[str, Expert]]:
    experts = block.get_submodule(name)
    assert isinstance(experts, Experts)
    for index, expert in experts.named_children():
        assert isinstance(expert, Expert)
        yield f"{name}.{index}", expert


def _inspected(readers: Sequence[str], absorber: Absorber) -> str:
    """Where the search looks for the error: the innermost module around all readers.

    A single linear is judged by its own output, but by its parent's (the attention, the MLP) where a norm feeds it, as
    a fused query-key-value is.
    """
    shared = _common_parent(readers)
    return shared if len(readers) > 1 or (absorber.form != "rows" and shared) else readers[0]


def _common_parent(names: Sequence[str]) -> str:
    paths = [name.split(".")[:-1] for name in names]
    return ".".join(_shared_prefix(paths))


def _shared_prefix(paths: Sequence[Sequence[str]]) -> Iterator[str]:
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            return
        yield parts[0]
