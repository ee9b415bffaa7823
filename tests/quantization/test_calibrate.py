from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.quantization.calibrate import cut_windows, equal_batches


def test_windows_are_spread_over_the_stream() -> None:
    windows = cut_windows(torch.arange(1000), samples=4, seq_len=100)
    assert windows.ids[:, 0].tolist() == [0, 225, 450, 675]  # i * ((1000 - 100) // 4)
    assert windows.ids[1].tolist() == list(range(225, 325))
    assert (windows.tokens, windows.asked) == (400, 4)


def test_a_short_stream_gives_fewer_windows_and_says_so() -> None:
    windows = cut_windows(torch.arange(250), samples=8, seq_len=100)
    assert (len(windows.ids), windows.tokens, windows.asked) == (2, 200, 8)


def test_less_than_one_window_is_an_error() -> None:
    with pytest.raises(UserError, match="99 tokens, fewer than one window of 100"):
        cut_windows(torch.arange(99), samples=8, seq_len=100)


@given(st.integers(1, 500), st.integers(1, 12), st.integers(1, 50))
def test_windows_never_overlap_and_never_leave_the_stream(total: int, samples: int, seq_len: int) -> None:
    if total < seq_len:
        return
    ids = cut_windows(torch.arange(total), samples, seq_len).ids
    assert ids.unique().numel() == ids.numel()
    assert int(ids.max()) < total


def test_the_hash_is_of_the_ids() -> None:
    first, same, other = (cut_windows(torch.arange(total), 2, 8).sha256 for total in (20, 20, 40))
    assert first == same != other


def test_batches_are_equal_and_within_the_token_budget() -> None:
    assert [batch.shape for batch in equal_batches(torch.zeros(30, 48))] == [(5, 48)] * 6
    assert [batch.shape for batch in equal_batches(torch.zeros(3, 4096))] == [(1, 4096)] * 3
