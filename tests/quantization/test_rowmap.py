from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from awqbench.quantization.calibrate import BlockCall
from awqbench.quantization.rowmap import RowMapper, as_absorber

Mix = Callable[[Tensor], Tensor]


class Mixing(nn.Module):
    """up, then anything, then down."""

    def __init__(self, rows: int, mix: Mix) -> None:
        super().__init__()
        self.up, self.mix = nn.Linear(6, rows), mix
        self.down = nn.LazyLinear(6)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [.., 6]"""
        return hidden + self.down(self.mix(self.up(hidden)))


def found(rows: int, mix: Mix) -> list[int] | None:
    torch.manual_seed(0)
    block = Mixing(rows, mix)
    block(torch.randn(1, 1, 6))
    block = block.double().requires_grad_(False)
    channels = RowMapper(block, BlockCall((), {}), torch.randn(16, 6, dtype=torch.float64)).find("up", "down")
    return None if channels is None else channels.tolist()


@pytest.mark.parametrize(
    ("rows", "mix", "channels"),
    [
        (6, lambda x: x, [0, 1, 2, 3, 4, 5]),
        (4, lambda x: x.flip(-1), [3, 2, 1, 0]),
        (2, lambda x: x.repeat_interleave(2, -1), [0, 0, 1, 1]),
        (2, lambda x: x.repeat(1, 1, 2), [0, 1, 0, 1]),
        (6, lambda x: x.unflatten(-1, (2, 3))[..., 2], [2, 5]),  # values interleaved with queries and keys
        (5, functional.relu, [0, 1, 2, 3, 4]),
        (6, lambda x: functional.silu(x[..., :3]) * x[..., 3:], [3, 4, 5]),
        (6, lambda x: functional.silu(x[..., 3:]) * x[..., :3], [0, 1, 2]),
        (6, lambda x: functional.silu(x[..., ::2]) * x[..., 1::2], [1, 3, 5]),
        (6, lambda x: functional.silu(x[..., 1::2]) * x[..., ::2], [0, 2, 4]),
        (6, lambda x: x[..., :2].tanh() * x[..., 2:4] * x[..., 4:].exp(), [2, 3]),
        (6, lambda x: x[..., :2] * x[..., 2:4] * x[..., 4:], [4, 5]),
        (4, functional.gelu, None),
        (4, lambda x: x + 1, None),
        (4, lambda x: x - x.mean(-1, keepdim=True), None),
        (4, lambda x: torch.zeros_like(x), None),
        (4, lambda x: torch.ones_like(x), None),
        (4, lambda x: x[..., :2] * x[..., 2:], [2, 3]),
    ],
)
def test_the_row_behind_each_channel_is_found(rows: int, mix: Mix, channels: list[int] | None) -> None:
    assert found(rows, mix) == channels


def test_channels_that_no_token_opens_follow_the_others() -> None:
    closed = torch.tensor([1.0, 0.0, 1.0])
    assert found(5, lambda x: x[..., 2:] * closed) == [2, 3, 4]
    assert found(5, lambda x: x[..., [4, 2, 3]] * closed) is None  # the others have no common order


def test_a_reader_that_a_token_does_not_reach_has_no_map() -> None:
    block = Mixing(4, lambda x: x)
    block(torch.randn(1, 1, 6))
    block.extra = nn.Linear(4, 4)
    mapper = RowMapper(block.requires_grad_(False), BlockCall((), {}), torch.randn(4, 6))
    assert mapper.find("up", "extra") is None


def test_a_map_to_the_last_rows_is_the_plain_one() -> None:
    assert as_absorber("up", torch.tensor([2, 3]), 4).channels is None
    assert as_absorber("up", torch.tensor([1, 2]), 4).channels is not None
