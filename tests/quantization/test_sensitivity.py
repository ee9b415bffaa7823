from __future__ import annotations

import pytest
import torch
from torch import nn

from awqbench.quantization.calibrate import BlockCall, BlockCalls
from awqbench.quantization.sensitivity import block_errors

CALL = BlockCall((), {})
CALLS = BlockCalls(CALL, CALL, CALL)


class _Block(nn.Module):
    """One linear speaks loudly, one softly, one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.loud, self.soft, self.mute = (nn.Linear(4, 4, bias=False) for _ in range(3))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return 10 * self.loud(hidden) + 0.1 * self.soft(hidden) + 0 * self.mute(hidden)


@pytest.fixture
def block() -> _Block:
    torch.manual_seed(0)
    return _Block().requires_grad_(False)


def _damage(block: _Block) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights before and after all linears get the same error; the block holds the latter."""
    names = ("loud", "soft", "mute")
    folded = {name: block.get_submodule(name).weight.data for name in names}
    for name in names:
        block.get_submodule(name).weight.data = folded[name] + 0.1
    return folded, {name: block.get_submodule(name).weight.data for name in names}


def test_restoring_the_linear_with_the_highest_error_helps_the_block_most(block: _Block) -> None:
    hidden = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))]
    expected = block(hidden[0])
    folded, rounded = _damage(block)
    errors = block_errors(block, CALLS, hidden, folded, folded)
    assert all(torch.equal(block.get_submodule(name).weight, weight) for name, weight in rounded.items())

    def left(restored: str) -> float:
        block.get_submodule(restored).weight.data = folded[restored]
        error = float((block(hidden[0]) - expected).square().sum())
        block.get_submodule(restored).weight.data = rounded[restored]
        return error

    after = {name: left(name) for name in folded}
    assert max(errors, key=lambda name: errors[name] or 0) == min(after, key=lambda name: after[name]) == "loud"
    assert errors["mute"] == 0.0


def test_the_error_is_the_squared_difference_over_the_squared_output(block: _Block) -> None:
    hidden = [torch.ones(1, 1, 4)]
    signal = float(block(hidden[0]).square().sum())
    folded, _ = _damage(block)
    # The loud linear alone is off by 10 * 4 * 0.1 in each of the 4 outputs.
    assert block_errors(block, CALLS, hidden, folded, folded)["loud"] == pytest.approx(4 * 16 / signal, rel=1e-4)


@pytest.mark.parametrize(("shape", "batches", "tokens"), [((2, 64), 10, 512), ((1, 600), 3, 600), ((1, 8), 2, 16)])
def test_whole_batches_of_512_tokens_or_one_are_looked_at(
    block: _Block, shape: tuple[int, int], batches: int, tokens: int
) -> None:
    seen: list[int] = []
    handle = block.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0] * args[0].shape[1]))
    folded, _ = _damage(block)
    block_errors(block, CALLS, [torch.randn(*shape, 4)] * batches, folded, folded)
    handle.remove()
    assert sum(seen) == tokens * (1 + len(folded))


class _WithPositions(_Block):
    """A block that is handed the positions of its tokens, as with rotary embeddings: others do not fit."""

    def forward(self, hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden + positions)


@pytest.mark.parametrize("length", [16, 600])
def test_a_batch_is_given_what_belongs_to_its_length(length: int) -> None:
    block = _WithPositions().requires_grad_(False)
    calls = BlockCalls(*(BlockCall((torch.arange(float(count)).view(1, count, 1),), {}) for count in (length, 16, 1)))
    folded, _ = _damage(block)
    errors = block_errors(block, calls, [torch.randn(1, length, 4)], folded, folded)
    assert errors["loud"] is not None
    assert errors["loud"] > 0


def test_the_rounded_weights_are_back_when_the_block_fails(block: _Block) -> None:
    folded, rounded = _damage(block)
    with pytest.raises(RuntimeError):
        block_errors(block, CALLS, [torch.randn(1, 2, 5)], folded, folded)
    assert all(torch.equal(block.get_submodule(name).weight, weight) for name, weight in rounded.items())
