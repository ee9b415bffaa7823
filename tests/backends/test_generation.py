"""Prompts of unlike lengths are continued in one batch as each of them is alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from awqbench.backends import generation
from awqbench.backends.generation import generate
from awqbench.backends.stops import Stops
from awqbench.runtime import attach
from awqbench.runtime.attach import Runtime

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [9], [5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 15], [3, 4, 5, 6, 7]]
NOTHING = Stops([])


class Watched(Runtime):
    """A runtime that keeps the sizes of the batches it was asked to begin, and which rows went on."""

    def __init__(self, inner: Runtime) -> None:
        super().__init__(inner.model, inner.device, inner.native, inner.name, inner.static)
        self.begun: list[tuple[int, int, bool]] = []

    def begin(self, batch: int, length: int, padded: bool = False) -> Any:
        self.begun.append((batch, length, padded))
        return super().begin(batch, length, padded)


def runtime(folder: Path, asked: str) -> Watched:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        made = Watched(attach(model, CPU, asked))
        assert made.sharing == "any"
    made.begun.clear()
    return made


@pytest.fixture(params=["native", "static", "transformers"])
def watched(request: pytest.FixtureRequest, tiny_llama: Path) -> Watched:
    from awqbench.ops import cpu

    if request.param == "native" and (reason := cpu.unavailable()):
        pytest.skip(reason)
    return runtime(tiny_llama, request.param)


@torch.no_grad()
def test_as_each_alone(watched: Watched) -> None:
    alone = [generate(watched, [prompt], 9, NOTHING, 1)[0] for prompt in PROMPTS]
    assert {len(answer) for answer in alone} == {9}
    watched.begun.clear()
    assert generate(watched, PROMPTS, 9, NOTHING, 4) == alone
    assert watched.begun == [(4, 16, True), (2, 11, True)]


@torch.no_grad()
def test_a_row_that_has_ended_leaves_the_others_as_they_are(watched: Watched) -> None:
    free = generate(watched, PROMPTS, 12, NOTHING, 6)
    stops = {answer[place] for place, answer in enumerate(free)}  # the first answers end early, the last ones late
    expected = [
        answer[: min((place for place, token in enumerate(answer) if token in stops), default=12)] for answer in free
    ]
    assert len({len(answer) for answer in expected}) > 2
    assert generate(watched, PROMPTS, 12, Stops(stops), 6) == expected


@torch.no_grad()
def test_stop_texts(watched: Watched, tiny_llama: Path) -> None:
    decode = AutoTokenizer.from_pretrained(tiny_llama).decode
    free = generate(watched, PROMPTS, 12, NOTHING, 6)
    stop = decode(free[2][5:7])
    expected = [answer[: next((n for n in range(1, 13) if stop in decode(answer[:n])), 12)] for answer in free]
    assert len(expected[2]) <= 7
    assert generate(watched, PROMPTS, 12, Stops([], [stop], decode), 6) == expected


@torch.no_grad()
def test_no_tokens_and_no_prompts(watched: Watched) -> None:
    assert generate(watched, PROMPTS[:2], 0, NOTHING, 4) == [[], []]
    assert generate(watched, [], 4, NOTHING, 4) == []
    assert watched.begun == []


@torch.no_grad()
def test_batches_are_bounded(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = runtime(tiny_llama, "transformers")
    monkeypatch.setattr(generation, "BATCH_TOKENS", 20)
    answers = generate(watched, PROMPTS, 4, NOTHING, 6)
    assert watched.begun == [(1, 11, False), (2, 9, True), (3, 6, True)]
    assert answers == [generate(watched, [prompt], 4, NOTHING, 1)[0] for prompt in PROMPTS]


@torch.no_grad()
def test_the_native_step_gets_no_more_than_it_takes(tiny_llama: Path) -> None:
    watched = runtime(tiny_llama, "auto")
    if watched.native is None:
        pytest.skip(watched.name)
    generate(watched, PROMPTS * 4, 2, NOTHING, 32)
    assert [batch for batch, *_ in watched.begun] == [16, 8]


class Positional(nn.Module):
    """Adds an embedding of the place in the input to the model's own embeddings: padding moves every token."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1]).view(1, -1, 1)
        embedded: Tensor = self.inner(ids)
        return embedded + torch.sin(places * 3.0)


@torch.no_grad()
def test_a_model_that_padding_changes_is_decoded_length_by_length() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.set_input_embeddings(Positional(model.get_input_embeddings()))
    watched = Watched(attach(model, CPU, "transformers"))
    assert watched.sharing == "alike"
    watched.begun.clear()
    answers = generate(watched, PROMPTS, 5, NOTHING, 8)
    assert watched.begun == [(1, 12, False), (1, 10, False), (1, 8, False), (2, 7, False), (1, 6, False)]
    assert answers == [generate(watched, [prompt], 5, NOTHING, 1)[0] for prompt in PROMPTS]
