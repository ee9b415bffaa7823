"""Flip rates counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from awqbench.report.sections.flip_rates import Share, flip_rates


def items(count: int) -> pd.DataFrame:
    """Sure where the number is high. The first tenth turned wrong, the next turned right, then other wrong answers."""
    place = np.arange(count)
    before = place >= count * 2 // 10
    before[: count // 10] = True
    after = place >= count * 2 // 10
    after[count // 10 : count * 2 // 10] = True
    wrong = place >= count * 8 // 10
    return pd.DataFrame(
        {
            "item_id": [f"i{number}" for number in place],
            "cluster": [f"c{number}" for number in place],
            "correct_base": before & ~wrong,
            "correct": after & ~wrong,
            "prediction_base": "a",
            "prediction": np.where(place >= count * 9 // 10, "b", "a"),
            "margin_base": place / 10,
        }
    )


def test_rates_by_confidence() -> None:
    whole, *quarters = flip_rates(items(200))
    assert (whole.turned_wrong.count, whole.turned_right.count, whole.flipped.count) == (20, 20, 40)
    assert (whole.other_wrong.count, whole.other_wrong.n) == (20, 40)
    assert whole.flipped.rate == 0.2
    assert whole.flipped.low is not None
    # Without clusters the interval is the normal one, with n - 1 in its variance.
    exact = binomtest(40, 200).proportion_ci(method="wilson")
    assert whole.flipped.low == pytest.approx(exact.low, abs=0.01)
    assert [(q.flipped.count, q.flipped.n) for q in quarters] == [(40, 50), (0, 50), (0, 50), (0, 50)]
    assert quarters[0].label == "least sure quarter: lead of 0.00 to 4.90 nats"
    # No flip in fifty is no proof that there are none.
    assert quarters[3].flipped.low == 0
    assert quarters[3].flipped.high == pytest.approx(1 - 0.025 ** (1 / 50))


def test_no_quarters_of_few_items_or_without_margins() -> None:
    assert len(flip_rates(items(60))) == 1
    assert len(flip_rates(items(200).drop(columns="margin_base"))) == 1
    assert len(flip_rates(items(200).assign(margin_base=0.0))) == 1


def test_a_share_of_nothing_has_no_rate() -> None:
    nobody = items(200).iloc[:0]
    assert flip_rates(nobody)[0].other_wrong == Share(0, 0, None, None)
    assert flip_rates(nobody)[0].other_wrong.rate is None
