"""What each linear's rounding alone does to the output of its block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from awqbench.quantization.accounting import ratio
from awqbench.quantization.blocks import linear_at
from awqbench.quantization.calibrate import BlockCall, BlockCalls

TOKENS = 512


def block_errors(
    block: nn.Module,
    calls: BlockCalls,
    hidden: Sequence[Tensor],
    folded: Mapping[str, Tensor],
    originals: Mapping[str, Tensor],
) -> dict[str, float | None]:
    """Relative squared error of the block's output when only this linear is rounded, by linear.

    `folded` holds the linears' scaled but unrounded weights, `originals` tensors of the dtype the block computes in.
    The block, which holds the rounded ones, is left as it is. At most `TOKENS` tokens of `hidden` are looked at.
    """
    rounded = {name: linear_at(block, name).weight.data for name in folded}
    call, states = _sample(calls, hidden)

    def outputs() -> list[Tensor]:
        return [call(block, state).float() for state in states]

    errors: dict[str, float | None] = {}
    try:
        for name, weight in folded.items():
            linear_at(block, name).weight.data = weight.to(originals[name].dtype)
        expected = outputs()
        signal = sum(float(each.square().sum()) for each in expected)
        for name, weight in rounded.items():
            kept = linear_at(block, name).weight.data
            linear_at(block, name).weight.data = weight
            pairs = zip(outputs(), expected, strict=True)
            errors[name] = ratio(sum(float((got - want).square().sum()) for got, want in pairs), signal)
            linear_at(block, name).weight.data = kept
    finally:
        for name, weight in rounded.items():
            linear_at(block, name).weight.data = weight
    return errors


def _sample(calls: BlockCalls, hidden: Sequence[Tensor]) -> tuple[BlockCall, list[Tensor]]:
    """Whole batches where one is small enough, else the beginnings of as many windows as may be looked at."""
    first = hidden[0]
    tokens = first.shape[0] * first.shape[1]
    if tokens <= TOKENS:
        return calls.full, [first, *(hidden[index] for index in range(1, min(TOKENS // tokens, len(hidden))))]
    length = min(32, first.shape[1])
    windows = [(index, row) for index in range(len(hidden)) for row in range(first.shape[0])][: TOKENS // length]
    return calls.stretch, [hidden[index][row : row + 1, :length] for index, row in windows]
