from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from awqbench.quantization.absorb import Absorber
from awqbench.quantization.calibrate import BlockCall
from awqbench.quantization.groups import Group
from awqbench.quantization.watch import Watched, watch


class _Mixture(nn.Module):
    """Two experts; tokens with a positive first channel go to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = hidden.reshape(-1, 4)
        out, chosen = torch.zeros_like(rows), rows[:, 0] > 0
        for expert, mask in ((self.first, chosen), (self.second, ~chosen)):
            if mask.any():
                out[mask] = expert(rows[mask])
        return out.view_as(hidden)


@pytest.fixture
def block() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(4), _Mixture()).requires_grad_(False)


GROUP = Group(
    ("1.first", "1.second"), Absorber("0", "weight"), "1", shares=(("1.first",), ("1.second",))
)  # fmt: skip
CALL = BlockCall((), {})


def _run(block: nn.Module, hidden: Any, emit: Callable[[torch.Tensor], None], sample: int) -> Watched:
    return watch(block, [GROUP], CALL, hidden, emit, sample)[0]


def test_every_expert_is_measured_on_its_own_tokens_and_outputs_come_in_order(block: nn.Module) -> None:
    hidden = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    outputs: list[torch.Tensor] = []
    seen = _run(block, hidden, outputs.append, 0)
    assert all(torch.equal(got, block(state)) for got, state in zip(outputs, hidden, strict=True))
    inputs = torch.cat([block[0](state).reshape(-1, 4) for state in hidden])
    first, second = (share.moments for share in seen.shares)
    assert first.gram == pytest.approx(inputs[inputs[:, 0] > 0].T @ inputs[inputs[:, 0] > 0], rel=1e-4, abs=1e-5)
    assert first.tokens + second.tokens == seen.tokens.tokens == 18
    assert seen.tokens.gram == pytest.approx(inputs.T @ inputs, rel=1e-4, abs=1e-5)
    assert seen.calls.calls == []


def test_an_expert_that_no_token_reaches_counts_none(block: nn.Module) -> None:
    block[0].bias[0] = 100.0
    seen = _run(block, [torch.randn(1, 5, 4)], lambda _: None, 0)
    assert [share.moments.tokens for share in seen.shares] == [5, 0]


class _OnDisk:
    """Counts how many of its batches are alive at a time."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        self.read += 1
        return torch.full((2, 4, 4), float(index + 1))


def test_calls_are_kept_for_a_bounded_sample_of_evenly_spaced_batches(block: nn.Module) -> None:
    hidden = _OnDisk(12)
    seen = _run(block, hidden, lambda _: None, 32)
    assert hidden.read == 12
    assert len(seen.calls.calls) == 4
    few = _run(block, _OnDisk(3), lambda _: None, 32)
    assert len(few.calls.calls) == 3


def test_no_hook_stays_when_the_block_fails(block: nn.Module) -> None:
    with pytest.raises(RuntimeError):
        _run(block, [torch.randn(1, 2, 4), torch.randn(1, 2, 5)], lambda _: None, 32)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in block.modules())
