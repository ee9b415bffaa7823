"""Choices of a question scored together: the packed engine gives the scores of each alone, and computes less."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from awqbench.backends import torch_engine
from awqbench.backends.packed import PackedBackend
from awqbench.backends.reference import ReferenceBackend

OPTIONS = {"dtype": "float32", "device": "cpu", "threads": None}


def test_a_packed_checkpoint_shares_beginnings(checkpoint: Callable[[str], Path]) -> None:
    engine = PackedBackend()
    engine.load({**OPTIONS, "weights": str(checkpoint("awq"))})
    positions: list[int] = []
    engine.model.register_forward_pre_hook(
        lambda _, __, named: positions.append(named["input_ids"].numel()), with_kwargs=True
    )
    draw = np.random.default_rng(0)
    contexts = [draw.integers(3, 259, length).tolist() for length in (90, 88, 85)]
    sequences = [context + draw.integers(3, 259, 4).tolist() for context in contexts for _ in range(4)]
    starts = [len(sequence) - 4 for sequence in sequences]
    found = list(engine.score(sequences, starts))
    proof_and_scores = sum(positions)
    alone = [next(engine.score([sequence], [start])) for sequence, start in zip(sequences, starts, strict=True)]
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-5)
        np.testing.assert_array_equal(one.argmax, other.argmax)
    assert engine._prefixes.limit == engine.model.config.max_position_embeddings
    assert 2 * proof_and_scores < sum(map(len, sequences))


def test_the_time_to_the_first_token_is_not_that_of_capturing_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """More shapes than caches are kept for have theirs captured again in every turn, warmed up or not."""
    clock = [0.0]

    class Runtime:
        def begin(self, batch: int, length: int) -> Runtime:
            clock[0] += 100.0
            return self

        def feed(self, ids: torch.Tensor) -> torch.Tensor:
            clock[0] += ids.shape[1]
            return torch.zeros(ids.shape[0], 3)

        def otherwise(self, batch: int, length: int) -> None:
            return None

    monkeypatch.setattr(torch_engine, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    engine = ReferenceBackend()
    engine.device, engine.runtime = torch.device("cpu"), Runtime()  # type: ignore[assignment]
    timing = engine.time([[1, 2, 3], [4, 5, 6]], 3)
    assert (timing.ttft_s, timing.gaps_s) == (3.0, [1.0, 1.0])


@pytest.fixture
def gradients() -> Iterator[None]:
    """An engine switches them off for its process."""
    yield
    torch.set_grad_enabled(True)


@pytest.mark.usefixtures("gradients")
def test_a_checkpoint_without_a_tokenizer_stops_at_texts(tiny_llama: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_llama, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    engine = ReferenceBackend()
    engine.load({**OPTIONS, "weights": str(bare), "model_dir": str(tiny_llama)})
    (whole,) = engine.generate([[70, 71, 72]], 6, [])
    text = engine._text(whole[2:3])
    (cut,) = engine.generate_until([[70, 71, 72]], 6, [], [text])
    assert cut == whole[: 1 + whole.index(whole[2])]


CODE = """from transformers import PreTrainedTokenizerFast


class Own(PreTrainedTokenizerFast):
    pass
"""


@pytest.mark.usefixtures("gradients")
def test_a_tokenizer_with_code_of_its_own_is_run_where_that_is_trusted(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(tiny_llama, folder)
    (folder / "own.py").write_text(CODE)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": [None, "own.Own"]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    engine = ReferenceBackend()
    engine.load({**OPTIONS, "weights": str(folder), "model_dir": str(folder), "trust_remote_code": True})
    assert engine.tokenize(["ab"], special=False) == [[67, 68]]
    assert type(engine._decoder).__name__ == "Own"
