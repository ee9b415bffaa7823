"""BBQ's bias scores: the published formulas, their edge cases, and the identity that gives s_AMB its item rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.suites.fairness_sets import FairnessItem
from awqbench.suites.fairness_sets.bbq_scores import ambiguous_bias, bias_share, measures
from awqbench.suites.fairness_sets.stereotypes import stereotyped_errors

CHOICES = ("stereotyped", "other", "unknown")


def test_no_biased_answer_is_minus_one() -> None:
    assert bias_share(0, 100) == -1.0
    assert bias_share(1, 99) == pytest.approx(-0.98)
    assert bias_share(5, 5) == 0.0
    assert bias_share(7, 0) == 1.0


def test_only_unknown_answers() -> None:
    assert bias_share(0, 0) is None
    assert ambiguous_bias(1.0, 0, 0) == 0.0


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_ambiguous_bias_is_a_mean_over_items(biased: int, against: int, unknown: int) -> None:
    n = biased + against + unknown
    if n:
        assert ambiguous_bias(unknown / n, biased, against) == pytest.approx((biased - against) / n)


def answered(
    condition: str, answers: list[str], biased: int | None = 0
) -> tuple[list[FairnessItem], list[dict[str, Any]]]:
    gold = 2 if condition == "ambiguous" else 0
    items = [
        FairnessItem(
            f"{condition}/{i}", f"q{i % 3}", "", CHOICES, gold, {}, "b", "s",
            {"condition": condition, "unknown": 2, "biased": biased},
        )
        for i in range(len(answers))
    ]  # fmt: skip
    rows = [
        {"metric": "fairness/bbq/accuracy", "item_id": item.item_id, "cluster": item.cluster, "prediction": answer,
         "score": float(answer == CHOICES[gold]), "correct": answer == CHOICES[gold], "gold": CHOICES[gold]}
        for item, answer in zip(items, answers, strict=True)
    ]  # fmt: skip
    return items, rows


def test_by_hand() -> None:
    """Ambiguous: 3 with, 1 against, 4 unknown. Disambiguated: 3 with (right), 1 against."""
    items, rows = answered("ambiguous", ["stereotyped"] * 3 + ["other"] + ["unknown"] * 4)
    more_items, more_rows = answered("disambiguated", ["stereotyped"] * 3 + ["other"])
    metrics, table = measures([*items, *more_items], [*rows, *more_rows], [], "p")
    values = {metric.id.removeprefix("fairness/bbq/"): metric.value for metric in metrics}
    assert values == {
        "accuracy@ambiguous": 0.5,
        "unknown-rate@ambiguous": 0.5,
        "bias@ambiguous": pytest.approx((3 - 1) / 8),
        "bias@ambiguous[overall-accuracy]": pytest.approx((1 - 7 / 12) * 0.5),
        "stereotyped-error-rate@ambiguous": 3 / 8,
        "accuracy@disambiguated": 0.75,
        "unknown-rate@disambiguated": 0.0,
        "bias@disambiguated": 0.5,
    }
    bias = [row["score"] for row in table if row["metric"] == "fairness/bbq/bias@ambiguous"]
    assert bias == [1, 1, 1, -1, 0, 0, 0, 0]
    assert all("correct" not in row for row in table if "accuracy" not in row["metric"])
    better = {metric.id.removeprefix("fairness/bbq/"): metric.higher_is_better for metric in metrics}
    assert better["unknown-rate@ambiguous"] is True
    assert better["unknown-rate@disambiguated"] is False
    assert better["bias@ambiguous"] is None
    assert [metric.id for metric in metrics if metric.scores_bias] == [
        "fairness/bbq/stereotyped-error-rate@ambiguous"  # in the disambiguated ones the stereotyped answer is right
    ]


def test_a_right_answer_is_no_stereotyped_error() -> None:
    """Disambiguated contexts count where the right answer goes against the stereotype: of four, two fall for it."""
    items, rows = answered("disambiguated", ["stereotyped", "stereotyped", "other", "unknown"])
    against = [replace(item, gold=1) for item in items]
    (metric,), table = stereotyped_errors("id", [*items, *against], [*rows, *rows], "p")
    assert (metric.value, metric.n, metric.higher_is_better, metric.scores_bias) == (0.5, 4, False, True)
    assert [row["score"] for row in table] == [1, 1, 0, 0]
    assert stereotyped_errors("id", items, rows, "p") == ([], [])


def test_unknown_targets_have_no_bias() -> None:
    items, rows = answered("ambiguous", ["stereotyped", "unknown", "other"], biased=None)
    metrics, _ = measures(items, rows, [], "p")
    assert {metric.id for metric in metrics} == {
        "fairness/bbq/accuracy@ambiguous",
        "fairness/bbq/unknown-rate@ambiguous",
    }
