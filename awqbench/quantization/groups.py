"""Scale groups: the linears that share one smoothing scale, with the operation that absorbs its inverse."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from awqbench.quantization.absorb import Absorber, Prover, candidates
from awqbench.quantization.calibrate import BlockCall
from awqbench.quantization.trace import trace_block

UNPROVED = "nothing absorbs a scale without changing the block's output"
NOT_FINITE = "the block's output is not finite"


@dataclass(frozen=True, slots=True)
class Group:
    """Linears of a block that read the same tensor; all names are relative to the block.

    `absorber` is None where no operation was proved to absorb a scale; `reason` then says so. `inspected` is the module
    whose output the scale search judges ("" is the block itself).
    """

    readers: tuple[str, ...]
    absorber: Absorber | None
    inspected: str
    reason: str = ""


def find_groups(
    block: nn.Module, call: BlockCall, hidden: Tensor, linears: Collection[str], *, seed: int = 0
) -> list[Group]:
    """The block's scale groups in the order they run, from one short stretch of input [batch, tokens, width].

    Only groups whose readers are all in `linears`, the ones that will be quantized, can be scaled: a linear that stays
    in full precision would have to be stored scaled.
    """
    trace = trace_block(block, call, hidden)
    prover = Prover(block, call, hidden, seed)
    finite = bool(prover.expected.isfinite().all())
    groups = []
    for key, readers in trace.readers.items():
        quantized = tuple(name for name in readers if name in linears)
        if len(quantized) < len(readers):
            kept = ", ".join(name for name in readers if name not in linears)
            if quantized:
                groups.append(Group(quantized, None, "", f"shares its input with {kept}, kept in full precision"))
            continue
        earlier = trace.order[: trace.order.index(readers[0])]
        tried = candidates(block, trace.makers.get(key, []), earlier, readers[0])
        absorber = next((one for one in tried if prover.preserves(one, readers)), None)
        if absorber is None:
            groups.append(Group(quantized, None, "", UNPROVED if finite else NOT_FINITE))
        else:
            groups.append(Group(quantized, absorber, _inspected(readers, absorber.form != "rows")))
    return groups


def shared_inputs(block: nn.Module, call: BlockCall, hidden: Tensor, linears: Collection[str]) -> list[Group]:
    """The same sets of linears with no absorber looked for: for methods that scale nothing."""
    readers = trace_block(block, call, hidden).readers.values()
    sets = [tuple(name for name in names if name in linears) for names in readers]
    return [Group(names, None, "") for names in sets if names]


def _inspected(readers: Sequence[str], from_norm: bool) -> str:
    """Where the search looks for the error: the innermost module around all readers.

    A single linear is judged by its own output, but by its parent's (the attention, the MLP) where a norm feeds it, as
    a fused query-key-value is.
    """
    shared = _common_parent(readers)
    return shared if len(readers) > 1 or (from_norm and shared) else readers[0]


def _common_parent(names: Sequence[str]) -> str:
    paths = [name.split(".")[:-1] for name in names]
    return ".".join(_shared_prefix(paths))


def _shared_prefix(paths: Sequence[Sequence[str]]) -> Iterator[str]:
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            return
        yield parts[0]
