"""Encoding and scoring of context and continuation."""

from __future__ import annotations

from itertools import groupby
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from awqbench.backends.base import Scored
from awqbench.errors import InvalidMeasurement, UserError
from awqbench.suites.likelihood import check_room, encode, encode_pair, prefix_id, room_of, score_pairs


class CountingScorer:
    """Costs every token its id in nats, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.starts: list[int] = []

    def score(self, sequences: Any, starts: Any, progress: Any = None) -> list[Scored]:
        self.asked += [tuple(s) for s in sequences]
        self.starts += starts
        return [
            Scored(-np.array(s[start:], np.float32), np.array(s[start:], np.int32))
            for s, start in zip(sequences, starts, strict=True)
        ]


def test_pairs_split_where_the_context_ends(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    context, continuation = encode_pair(tiny_tokenizer, "ab ", "cd")
    assert tiny_tokenizer.decode(context) == "ab"
    assert tiny_tokenizer.decode(continuation) == " cd"


def test_an_empty_context_becomes_bos(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    bos = tiny_tokenizer.bos_token_id
    assert encode_pair(tiny_tokenizer, "", "a") == ([bos], tiny_tokenizer.encode("a"))
    assert encode_pair(tiny_tokenizer, "", "<s>a") == ([bos], tiny_tokenizer.encode("a"))


def test_bos_is_never_doubled(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode(tiny_tokenizer, "<s>a").count(prefix_id(tiny_tokenizer)) == 1


def test_a_tokenizer_without_prefix_is_refused() -> None:
    tokenizer: Any = SimpleNamespace(bos_token_id=None, eos_token_id=None)
    with pytest.raises(UserError, match="neither a BOS nor an EOS"):
        prefix_id(tokenizer)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=1, max_size=12), st.lists(st.integers(0, 9), min_size=1, max_size=5)
        ),
        max_size=20,
    )
)
def test_order_truncation_and_duplicates(pairs: list[tuple[list[int], list[int]]]) -> None:
    scorer = CountingScorer()
    results = score_pairs(scorer, pairs, max_positions=8)
    assert [result.nll for result in results] == [sum(continuation) for _, continuation in pairs]
    assert all(len(sequence) <= 8 for sequence in scorer.asked)
    contexts = [sequence[:start] for sequence, start in zip(scorer.asked, scorer.starts, strict=True)]
    runs = [context for context, _ in groupby(contexts)]
    assert len(runs) == len(set(runs)), "pairs of one context are asked together"
    reach = [max(len(s) for s, own in zip(scorer.asked, contexts, strict=True) if own == context) for context in runs]
    assert reach == sorted(reach, reverse=True)
    assert len(scorer.asked) == len({((*c, *t)[-8:], len(t)) for c, t in pairs})


def test_continuations_that_cannot_be_scored() -> None:
    with pytest.raises(InvalidMeasurement, match="8 tokens does not fit in 8"):
        score_pairs(CountingScorer(), [([1], [1] * 8)], max_positions=8)
    with pytest.raises(InvalidMeasurement, match="without tokens"):
        score_pairs(CountingScorer(), [([1], [])], max_positions=8)


def test_not_a_number_is_no_measurement() -> None:
    class Broken(CountingScorer):
        def score(self, sequences: Any, starts: Any, progress: Any = None) -> list[Scored]:
            return [Scored(np.array([np.nan], np.float32), np.array([0], np.int32)) for _ in sequences]

    with pytest.raises(InvalidMeasurement, match="not a number"):
        score_pairs(Broken(), [([1], [1])], max_positions=8)


@pytest.mark.parametrize(
    ("length", "room", "asked_whole", "refused"),
    [(9, 8, 0, False), (9, 8, 9, False), (10, 8, 9, False), (10, 8, 10, True), (99, 8, 10, True), (8, 8, 99, False)],
)
def test_what_the_reference_is_asked_whole_is_cut_for_nobody(
    length: int, room: int, asked_whole: int, refused: bool
) -> None:
    """Beyond what the reference holds everybody's context loses its beginning; a server's last position is its own."""
    if refused:
        with pytest.raises(InvalidMeasurement, match=f"a question of {length} tokens does not fit in the {room}"):
            check_room(length, room, asked_whole)
    else:
        check_room(length, room, asked_whole)


@pytest.mark.parametrize(("holds", "asked_whole", "room"), [(64, 0, 64), (64, 32, 32), (16, 32, 16)])
def test_an_engine_of_a_longer_context_is_asked_no_more_than_the_reference(
    holds: int, asked_whole: int, room: int
) -> None:
    worker: Any = SimpleNamespace(description={"max_positions": holds})
    assert room_of(worker, asked_whole) == room
