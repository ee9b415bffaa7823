"""What is computed once: found for any inputs, never more than may be shared, and only where it saves something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.runtime import grouping
from awqbench.runtime.grouping import PASS, Batch, Pass, batches

CPU, NO_COST = Pass(32, 2048, PASS["cpu"]), Pass(32, 2048, 0.0)
FREE = {"REPEAT": 0.0, "LEAST": 1, "WORTH": 0.0}


@pytest.fixture
def free(monkeypatch):
    """Sharing costs nothing: whatever can be shared is."""
    for name, value in FREE.items():
        monkeypatch.setattr(grouping, name, value)


def forked(length, *tails, seed=0):
    """Inputs with `length` tokens in common that a seed tells from others."""
    return [(*(1000 * seed + n for n in range(length)), *tail) for tail in tails]


def positions(found, each=CPU):
    """What the forward passes are given, padding included."""
    return sum(
        len(batch.groups) * batch.longest
        if not batch.prefix
        else len(batch.groups) * batch.prefix
        + sum(len(piece) * (len(piece[0][1]) - batch.prefix) for piece in batch.pieces(each))
        for batch in found
    )


inputs = st.lists(st.integers(0, 2), min_size=1, max_size=14).map(tuple)
requests = st.dictionaries(inputs, st.integers(0, 13), max_size=24).map(
    lambda limits: {ids: min(limit, len(ids) - 1) for ids, limit in limits.items()}
)


@given(requests, st.integers(1, 6), st.integers(1, 60), st.booleans())
def test_every_input_is_in_one_batch_within_its_limits(limits, size, tokens, cheap):
    each = Pass(size, tokens, 0.0 if cheap else PASS["cpu"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (FREE if cheap else {}).items():
            patch.setattr(grouping, name, value)
        found = batches(limits, each)
        plain = batches(dict.fromkeys(limits, 0), each)
    assert sorted(ids for batch in found for ids in batch.inputs) == sorted(limits)
    assert [batch.longest for batch in found] == sorted((batch.longest for batch in found), reverse=True)
    for batch in found:
        width = batch.prefix or batch.longest
        assert len(batch.groups) == 1 or (len(batch.groups) <= size and len(batch.groups) * width <= tokens)
        for group in batch.groups:
            assert len({ids[: batch.prefix] for ids in group}) == 1
            assert all(batch.prefix <= limits[ids] for ids in group)
            assert len(group) == 1 or batch.prefix
        if not batch.prefix:
            continue
        pieces = list(batch.pieces(each))
        assert sorted(row for piece in pieces for row in piece) == sorted(
            (number, ids) for number, group in enumerate(batch.groups) for ids in group
        )
        for piece in pieces:
            rows = len(piece) * (max(len(ids) for _, ids in piece) - batch.prefix)
            assert len(piece) == 1 or (len(piece) <= size and rows <= tokens)
    if cheap:
        assert positions(found, each) <= positions(plain, each)


def test_choices_of_two_questions():
    """39 + 37 shared tokens, cut to 37, and eight tails of 3 to 5 tokens behind them."""
    one = forked(39, (1, 1), (2, 2), (3, 3), (4, 4))
    other = forked(37, (1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), seed=1)
    limits = dict.fromkeys(one, 39) | dict.fromkeys(other, 37)
    (batch,) = batches(limits, CPU)
    assert batch.prefix == 37
    assert sorted(map(sorted, batch.groups)) == [sorted(one), sorted(other)]
    assert positions([batch]) == 2 * 37 + 8 * 4
    assert positions(batches(dict.fromkeys(limits, 0), CPU)) == 8 * 41


def test_a_limit_of_one_member_holds_for_all(free):
    one, other = forked(20, (1, 1), (2, 2))
    (batch,) = batches({one: 12, other: 19}, NO_COST)
    assert batch.prefix == 12


@pytest.mark.parametrize(
    "limits",
    [
        dict.fromkeys(forked(60, (1,), (2,), (3,)), 0),  # scored from the first token on
        dict.fromkeys(forked(12, (1,), (2,)), 11),  # two passes of few tokens take longer than one
        dict.fromkeys(forked(8, (1,) * 60, (2,) * 60, (3,) * 60), 8),  # what they have in common is little
        {ids: 50 for seed in range(5) for ids in forked(60, (1,), seed=seed)},  # nothing in common
        {},
    ],
)
def test_what_saves_nothing_stays_whole(limits):
    assert all(batch.prefix == 0 for batch in batches(limits, CPU))


def test_an_input_that_begins_another_is_a_member(free):
    """The shorter keeps a token of its own behind the prefix: its limit is below its length."""
    one, other = forked(20, (), (5, 5, 5))
    (batch,) = batches({one: 19, other: 20}, NO_COST)
    assert batch == Batch(19, ((one, other),))


def test_the_better_of_two_splits(free):
    """Three that share 30 tokens, and two of these 40 more: 60 tokens are saved by one group, 70 by the pair."""
    pair = forked(70, (1,), (2,))
    third = (*pair[0][:30], -1)
    found = batches({pair[0]: 70, pair[1]: 70, third: 30}, NO_COST)
    assert {batch.prefix for batch in found} == {70, 0}
    assert batches({pair[0]: 50, pair[1]: 50, third: 30}, NO_COST)[0].prefix == 30


def test_beginnings_of_unlike_lengths_are_not_cut_to_the_shortest():
    long, short = forked(400, (1,), (2,), (3,)), forked(40, (1,), (2,), (3,), seed=1)
    found = batches({ids: len(ids) - 1 for ids in (*long, *short)}, CPU)
    assert [batch.prefix for batch in found] == [400, 40]
