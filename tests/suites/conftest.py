"""A tiny real model behind the worker's interface, in this process: suites are tested without a process each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from awqbench.backends.base import Scored
from awqbench.backends.torch_engine import TorchEngine
from awqbench.spec import RunSpec
from awqbench.suites.base import Context


class InProcessWorker:
    """A TorchEngine with the client's signatures."""

    def __init__(self, folder: Path) -> None:
        self.engine = TorchEngine()
        self.engine.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.engine.device, self.engine.batch_size = torch.device("cpu"), 8
        self.engine.runtime, self.engine.options = self.engine.attach({}), {"weights": str(folder)}
        self.description = {"max_positions": self.engine.model.config.max_position_embeddings}
        self.offered = {"score", "generate"}
        self.sequences_scored = 0

    def offers(self, capability: str) -> bool:
        return capability in self.offered

    def score(self, sequences: Any, starts: Any, progress: Any = None) -> list[Scored]:
        self.sequences_scored += len(sequences)
        with torch.no_grad():
            scored = list(self.engine.score([list(s) for s in sequences], list(starts)))
        if progress:
            progress(len(scored), len(scored))
        return scored

    def generate(self, prompts: Any, max_new_tokens: int, stop_ids: Any, stop_texts: Any = ()) -> list[list[int]]:
        with torch.no_grad():
            return self.engine.generate_until(
                [list(p) for p in prompts], max_new_tokens, list(stop_ids), list(stop_texts)
            )


class Uniform:
    """An engine whose every log-probability is known: token t costs t/100 nats. The arithmetic around it is real."""

    def __init__(self) -> None:
        self.description = {"max_positions": 64}

    def offers(self, capability: str) -> bool:
        return True

    def score(self, sequences: Sequence[Sequence[int]], starts: Sequence[int], progress: object = None) -> list[Scored]:
        return [
            Scored(-np.array(ids[start:], np.float32) / 100, np.zeros(len(ids) - start, np.int32))
            for ids, start in zip(sequences, starts, strict=True)
        ]


@pytest.fixture
def uniform_worker() -> Uniform:
    """An engine for figures worked out by hand."""
    return Uniform()


@pytest.fixture
def tiny_worker(tiny_llama: Path) -> InProcessWorker:
    """The tiny model as a worker."""
    return InProcessWorker(tiny_llama)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_llama: Path) -> PreTrainedTokenizerFast:
    """The tiny model's tokenizer: one token per byte, no BOS of its own accord."""
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(tiny_llama)
    return tokenizer


@pytest.fixture
def make_context(
    tiny_worker: InProcessWorker, tiny_llama: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> Callable[..., Context]:
    """make_context(kind, share=1.0, **keys of the suite's table)."""

    def make(kind: str, share: float = 1.0, **keys: Any) -> Context:
        spec = RunSpec.model_validate({"suites": {kind: keys}})
        worker: Any = tiny_worker
        context = Context(spec=spec, suite=spec.suites[kind], worker=worker, model_dir=tiny_llama, share=share)
        context.__dict__["tokenizer"] = tiny_tokenizer
        return context

    return make
