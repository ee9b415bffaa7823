"""What is attributed: a number per unit (a window of text, or an item) that is zero for the reference itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from awqbench.suites.fairness_sets.base import FairnessItem, Per, compared_length

ItemLoss = Literal["choice", "nll", "preference"]


class Damage(Protocol):
    """Losses of units, each differentiable in the model's weights."""

    unit: str
    distance: bool  # never below zero, so that any at all is damage
    clusters: list[str]  # units of one name are not independent
    tokens: list[int]  # forward-pass tokens of each unit

    def record(self, reference: nn.Module, index: int) -> None:
        """Keep what the reference says of a unit."""

    def loss(self, model: nn.Module, index: int) -> Tensor:
        """The unit's damage, a scalar: 0 for the reference."""


class Divergence:
    """Mean over a window's positions of KL(reference || model), full vocabulary, nats per token.

    The reference's log-probabilities lie in `scratch` as float32.
    """

    unit, distance = "nats per token", True

    def __init__(self, windows: Sequence[Sequence[int]], scratch: Path, clusters: Sequence[str] | None = None) -> None:
        self.windows, self.scratch = windows, scratch
        self.clusters = list(clusters or (f"window-{index:05d}" for index in range(len(windows))))
        self.tokens = [len(ids) for ids in windows]

    def record(self, reference: nn.Module, index: int) -> None:
        """See `Damage`."""
        np.save(self._file(index), _logprobs(reference, self.windows[index]).cpu().numpy())

    def loss(self, model: nn.Module, index: int) -> Tensor:
        """See `Damage`."""
        given = _logprobs(model, self.windows[index])
        expected = torch.from_numpy(np.load(self._file(index))).to(given)
        # float64 sums: of 49,000 float32 terms, rounding alone would leave 1e-6.
        return (expected.double().exp() * (expected.double() - given.double())).sum(-1).mean()

    def _file(self, index: int) -> Path:
        return self.scratch / f"window-{index:05d}.npy"


@dataclass(frozen=True, slots=True)
class Question:
    """An item as token ids: each choice with its context, and where the choice begins."""

    sequences: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    gold: int
    lengths: tuple[int, ...]  # what log-likelihoods are divided by: tokens, characters, or 1

    @classmethod
    def of(cls, item: FairnessItem, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], per: Per) -> Question:
        """From context and continuation ids of each choice."""
        return cls(
            tuple((*context, *continuation) for context, continuation in pairs),
            tuple(len(context) for context, _ in pairs),
            item.gold if item.gold is not None else 0,
            tuple(
                compared_length(per, choice, len(continuation))
                for choice, (_, continuation) in zip(item.choices, pairs, strict=True)
            ),
        )


class Items:
    """The increase of an item's loss over the reference's, nats.

    `choice`: -log of the right choice's probability among the choices. `nll`: the right choice's own negative
    log-likelihood, or a text's. `preference`: by how much the stereotyping sentence became likelier against the other
    one; nothing is right or wrong there. Log-likelihoods are sums over tokens, divided by the number of tokens or
    characters where the set compares those.
    """

    unit, distance = "nats per item", False

    def __init__(self, questions: Sequence[Question], clusters: Sequence[str], kind: ItemLoss) -> None:
        self.questions, self.clusters, self.kind = questions, list(clusters), kind
        self.tokens = [sum(len(sequence) - 1 for sequence in self._asked(question)[0]) for question in questions]
        self._before = [0.0] * len(questions)

    def record(self, reference: nn.Module, index: int) -> None:
        """See `Damage`."""
        self._before[index] = float(self._loss(reference, self.questions[index]))

    def loss(self, model: nn.Module, index: int) -> Tensor:
        """See `Damage`."""
        return self._loss(model, self.questions[index]) - self._before[index]

    def _asked(self, question: Question) -> tuple[Sequence[tuple[int, ...]], Sequence[int]]:
        chosen = [question.gold] if self.kind == "nll" else range(len(question.sequences))
        return [question.sequences[i] for i in chosen], [question.starts[i] for i in chosen]

    def _loss(self, model: nn.Module, question: Question) -> Tensor:
        sequences, starts = self._asked(question)
        lengths = [question.lengths[question.gold]] if self.kind == "nll" else question.lengths
        likelihoods = _likelihoods(model, sequences, starts)
        likelihoods = likelihoods / likelihoods.new_tensor(lengths)
        if self.kind == "nll":
            return -likelihoods[0]
        if self.kind == "preference":
            return likelihoods[0] - likelihoods[1]
        return -likelihoods.log_softmax(0)[question.gold]


def _logprobs(model: nn.Module, ids: Sequence[int]) -> Tensor:
    """[tokens - 1, vocabulary] float32, of all but the last token."""
    tokens = torch.tensor([ids[:-1]], device=next(model.parameters()).device)
    logits = model(input_ids=tokens, use_cache=False).logits[0].float()
    return cast(Tensor, logits - logits.logsumexp(-1, keepdim=True))


def _likelihoods(model: nn.Module, sequences: Sequence[tuple[int, ...]], starts: Sequence[int]) -> Tensor:
    """Summed log-likelihood of each sequence from its start on, float64. A causal LM ignores padding on the right."""
    device = next(model.parameters()).device
    longest = max(map(len, sequences)) - 1
    ids = torch.zeros(len(sequences), longest, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence) - 1] = torch.tensor(sequence[:-1], device=device)
        mask[row, : len(sequence) - 1] = 1
    logits = model(input_ids=ids, attention_mask=None if mask.all() else mask, use_cache=False).logits
    sums = []
    for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        rows = logits[row, start - 1 : len(sequence) - 1].double()
        targets = torch.tensor(sequence[start:], device=device).unsqueeze(1)
        sums.append((rows.gather(1, targets)[:, 0] - rows.logsumexp(1)).sum())
    return torch.stack(sums)
