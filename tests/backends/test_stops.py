"""An answer ends at a stop id, or with the token that completes a stop text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.backends.stops import Stops

PIECES = ["a", "b", "\n", "\n\n", "b\n", " a", "é", "", "ab\na"]


def text(ids: Sequence[int]) -> str:
    """A tokenizer whose texts can be cut into tokens in many ways, and which drops a leading space."""
    return "".join(PIECES[token] for token in ids).removeprefix(" ")


@given(
    st.lists(st.integers(0, len(PIECES) - 1).filter(lambda token: PIECES[token] != ""), max_size=12),
    st.lists(st.text("ab\n é", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_an_answer_ends_where_its_text_first_holds_a_stop(answer: list[int], texts: list[str]) -> None:
    stops = Stops([], texts, text)
    for count in range(1, len(answer) + 1):
        held = any(stop in text(answer[:count]) for stop in texts)
        assert stops.after(answer[:count]) == held
        if held:
            break


def test_a_stop_id_is_no_part_of_an_answer() -> None:
    stops = Stops([3, 5])
    assert [token for token in range(7) if stops.at(token)] == [3, 5]
    assert not stops.after([3])


def test_an_empty_text_ends_nothing() -> None:
    assert not Stops([], [""], text).after([0])


def test_texts_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="need a way"):
        Stops([], ["x"])
