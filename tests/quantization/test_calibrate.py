from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.quantization.blocks import find_blocks
from awqbench.quantization.calibrate import capture_blocks, cut_windows


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


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "opt"])
def test_blocks_called_as_captured_give_the_models_hidden_states(
    build: Callable[..., Any], ids: torch.Tensor, architecture: str
) -> None:
    model = build(architecture)
    _, blocks = find_blocks(model)
    windows = cut_windows(ids, samples=30, seq_len=48)  # three batches of ten: within 512 tokens
    hidden, calls = capture_blocks(model, blocks, windows)
    assert [state.shape[:2] for state in hidden] == [(10, 48)] * 3
    with torch.no_grad():
        expected = model(input_ids=windows.ids, output_hidden_states=True).hidden_states
        state = hidden[2]
        assert torch.allclose(state, expected[0][20:])
        assert torch.allclose(calls[0](blocks[0], state), expected[1][20:], atol=1e-4)


def test_capturing_leaves_no_hooks(build: Callable[..., Any], ids: torch.Tensor) -> None:
    model = build("llama")
    _, blocks = find_blocks(model)
    capture_blocks(model, blocks, cut_windows(ids, 1, 8))
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in blocks)
