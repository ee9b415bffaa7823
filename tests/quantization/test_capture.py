from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awqbench.errors import UserError
from awqbench.modeling.skeleton import skeleton
from awqbench.modeling.weights import Weights
from awqbench.quantization.blocks import find_blocks
from awqbench.quantization.capture import STRETCH_TOKENS, capture_calls

KINDS = [
    "llama", "gemma2", "gemma3", "opt", "gpt2", "gptj", "neox", "falcon-new", "bloom", "mpt", "cohere", "mixtral",
    "mamba",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_block_after_block_is_the_whole_model_to_the_bit(
    build: Callable[..., Any], ids: Tensor, tmp_path: Path, kind: str
) -> None:
    model = build(kind)
    model.save_pretrained(tmp_path / "model")
    empty = skeleton(tmp_path / "model")
    weights = Weights(tmp_path / "model", empty)
    stack, blocks = find_blocks(empty)
    windows = ids[: 6 * 40].view(6, 40)
    hidden: list[Tensor] = []
    calls = capture_calls(empty, weights, stack, windows, hidden.append, "cpu")
    assert all(parameter.is_meta for parameter in empty.parameters())
    size = len(hidden[0])
    for index, block in enumerate(blocks):
        weights.load(f"{stack}.{index}")
        with torch.no_grad():
            stretch = calls[index].stretch(block, hidden[0][:1, :STRETCH_TOKENS])
            single = calls[index].single(block, hidden[0][1:2, :1])
            hidden = [calls[index].full(block, state) for state in hidden]
        # A causal block gives the beginning of a text what it gives it in the whole text, to rounding.
        assert torch.allclose(stretch, hidden[0][:1, :STRETCH_TOKENS], atol=1e-4, rtol=1e-4)
        assert torch.allclose(single, hidden[0][1:2, :1], atol=1e-4, rtol=1e-4)
        weights.release(f"{stack}.{index}")
    expected = _last_block_outputs(model, windows.split(size))
    assert all(torch.equal(got, wanted) for got, wanted in zip(hidden, expected, strict=True))


def test_blocks_that_receive_more_of_the_text_are_refused(
    build: Callable[..., Any], ids: Tensor, tmp_path: Path
) -> None:
    model = build("llama")
    model.save_pretrained(tmp_path / "model")
    empty = skeleton(tmp_path / "model")
    empty.model.layers[0].register_forward_pre_hook(_hand_over_the_text(empty), with_kwargs=True)
    weights = Weights(tmp_path / "model", empty)
    with pytest.raises(UserError, match="more of the text than their hidden state"):
        capture_calls(empty, weights, "model.layers", ids[:1600].view(40, 40), lambda _: None, "cpu")


def test_blocks_that_do_not_run_one_after_another_are_refused(
    build: Callable[..., Any], ids: Tensor, tmp_path: Path
) -> None:
    model = build("llama")
    model.save_pretrained(tmp_path / "model")
    empty = skeleton(tmp_path / "model")
    empty.model.config.num_hidden_layers = 1  # the second block does not run
    weights = Weights(tmp_path / "model", empty)
    with pytest.raises(UserError, match="block by block"):
        capture_calls(empty, weights, "model.layers", ids[:80].view(2, 40), lambda _: None, "cpu")


def _last_block_outputs(model: nn.Module, batches: tuple[Tensor, ...]) -> list[Tensor]:
    seen: list[Tensor] = []
    last = find_blocks(model)[1][-1]
    handle = last.register_forward_hook(lambda _, args, out: seen.append(out if isinstance(out, Tensor) else out[0]))
    with torch.no_grad():
        for batch in batches:
            model(batch, use_cache=False)
    handle.remove()
    return seen


def _hand_over_the_text(model: Any) -> Callable[..., Any]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return args, {**kwargs, "text": args[0].sum()}

    return hook
