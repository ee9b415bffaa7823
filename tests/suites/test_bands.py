"""Bands worked out by hand, and that they part a window's positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.suites.bands import band_rows, band_table, confidence_bands, frequency_bands, order_of, position_bands


def test_frequency_by_coverage() -> None:
    # Twenty tokens. Type 7 covers ten of them: what follows has half before it. 3 and 5 have seven each side of 90 %.
    text = np.array([7] * 10 + [3] * 5 + [5] * 3 + [1, 2])
    assert frequency_bands(text) == {7: "frequent", 3: "medium", 5: "medium", 1: "rare", 2: "rare"}


def test_types_of_one_count_are_in_one_band() -> None:
    # Eight types once each: none may be called rarer than another by the order of their ids.
    assert set(frequency_bands(np.arange(8)).values()) == {"frequent"}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_a_rarer_type_is_never_in_a_more_frequent_band(ids: list[int]) -> None:
    text = np.array(ids)
    bands = frequency_bands(text)
    assert set(bands) == set(ids)
    ranks = [("frequent", "medium", "rare").index(bands[i]) for i in sorted(bands, key=lambda i: -ids.count(i))]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0


def test_positions_count_the_tokens_before() -> None:
    found = position_bands(300).tolist()
    assert [found[i - 1] for i in (1, 15, 16, 63, 64, 255, 256)] == [
        "1-15", "1-15", "16-63", "16-63", "64-255", "64-255", "256-1023",
    ]  # fmt: skip
    assert order_of("position", {"256-1023", "64-255", "1-15"}) == ["1-15", "64-255", "256-1023"]


def test_confidence_edges_belong_above() -> None:
    found = confidence_bands(np.array([0.1, 0.25, 0.5, 0.75, 1.0])).tolist()
    assert found == ["below 25 %", "25 to 50 %", "50 to 75 %", "75 % or more", "75 % or more"]


def test_rows_and_table_of_two_windows() -> None:
    first, second = np.array(["frequent", "rare", "rare"]), np.array(["rare", "rare", "rare"])
    kl = [np.array([0.1, 0.2, 0.4]), np.array([0.5, 0.5, 0.5])]
    rows = band_rows("m", "frequency", first, kl[0], "prefill-0", "w0")
    assert [(row["group_frequency"], row["item_id"], row["score"], row["tokens"]) for row in rows] == [
        ("frequent", "prefill-0/frequent", 0.1, 1), ("rare", "prefill-0/rare", pytest.approx(0.3), 2),
    ]  # fmt: skip
    table = band_table("frequency", [("w0", first, {"kl": kl[0]}), ("w1", second, {"kl": kl[1]})])
    frequent, rare = table
    # One window has no interval; means are those of windows, so that each counts alike.
    assert frequent == {"band": "frequent", "tokens": 1, "share": 1 / 6, "kl": 0.1, "low": None, "high": None}
    assert (rare["tokens"], rare["kl"]) == (5, pytest.approx(0.4))
    assert rare["low"] == 0 < rare["kl"] < rare["high"]  # t with one degree of freedom reaches below
    windows = [("w0", first, {"top1-disagreement": kl[0]}), ("w1", second, {"top1-disagreement": kl[1]})]
    assert band_table("frequency", windows)[1]["high"] == 1
