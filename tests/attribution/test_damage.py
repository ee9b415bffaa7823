from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from awqbench.attribution.damage import Divergence, Items, Question
from awqbench.attribution.dense import load_candidate
from awqbench.backends.torch_engine import log_softmax, score_row
from awqbench.suites.distances import divergences


@pytest.fixture(scope="module")
def models(llama: Path, llama_awq: Path) -> tuple[nn.Module, nn.Module]:
    """The reference and a damaged model."""
    return load_candidate(llama)[0], load_candidate(llama_awq)[0]


@torch.no_grad()
def logits(model: nn.Module, sequence: tuple[int, ...]) -> Tensor:
    result: Tensor = model(torch.tensor([sequence])).logits[0]
    return result


def test_divergence_is_the_suites(models: tuple[nn.Module, nn.Module], ids: Tensor, tmp_path: Path) -> None:
    reference, candidate = models
    window = ids[:30].tolist()
    damage = Divergence([window], tmp_path)
    with torch.no_grad():
        damage.record(reference, 0)
        assert float(damage.loss(reference, 0)) == pytest.approx(0, abs=1e-7)
    expected = divergences(*(log_softmax(logits(model, tuple(window))[:-1]) for model in models)).values["kl"].mean()
    assert float(damage.loss(candidate, 0)) == pytest.approx(expected, rel=1e-4)


# A long and a short answer to a context of three tokens: the short one is padded.
QUESTION = Question(((5, 6, 7, 20, 21, 22), (5, 6, 7, 30)), (3, 3), gold=1, lengths=(6, 2))


def nll(model: nn.Module, choice: int) -> float:
    sequence = QUESTION.sequences[choice]
    return score_row(logits(model, sequence)[:-1], list(sequence), QUESTION.starts[choice]).nll


@pytest.mark.parametrize("kind", ["choice", "nll", "preference"])
def test_items_are_scored_as_the_suites_score_them(models: tuple[nn.Module, nn.Module], kind: str) -> None:
    def loss(model: nn.Module) -> float:
        first, second = nll(model, 0) / 6, nll(model, 1) / 2
        if kind == "preference":
            return second - first
        return second if kind == "nll" else float(np.logaddexp(-first, -second) + second)

    reference, candidate = models
    damage = Items([QUESTION], ["c"], kind)  # type: ignore[arg-type]
    with torch.no_grad():
        damage.record(reference, 0)
        assert float(damage.loss(reference, 0)) == pytest.approx(0, abs=1e-6)
        assert float(damage.loss(candidate, 0)) == pytest.approx(loss(candidate) - loss(reference), abs=1e-5)
    assert damage.tokens == [3 if kind == "nll" else 8]
