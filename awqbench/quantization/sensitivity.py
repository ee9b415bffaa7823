"""What each linear's rounding alone does to the output of its block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from awqbench.quantization.accounting import ratio
from awqbench.quantization.blocks import linear_at
from awqbench.quantization.calibrate import BlockCalls

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
    The block, which holds the rounded ones, is left as it is. Of `hidden` the first batches are looked at, as many as
    hold at most `TOKENS` tokens, one at least.
    """
    rounded = {name: linear_at(block, name).weight.data for name in folded}
    count = max(1, TOKENS // (hidden[0].shape[0] * hidden[0].shape[1]))
    states = [hidden[index] for index in range(min(count, len(hidden)))]

    def outputs() -> list[Tensor]:
        return [calls.full(block, state).float() for state in states]

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
