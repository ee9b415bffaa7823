from __future__ import annotations

import pytest

from awqbench.attribution.cost import Cost, step_counts
from awqbench.errors import UserError


def test_worked_by_hand() -> None:
    """100 tokens, 3 nodes: 100 forward and 3 x 100 x 3. 10 tokens: as it is, 4 alone, then 1, 2 and 4, then all."""
    cost = Cost(100, 10, 3, 4)
    assert (cost.reference, cost.estimate, cost.confirm, cost.total) == (110, 1000, 90, 1200)


@pytest.mark.parametrize(("top", "counts"), [(0, []), (1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])])
def test_steps_double(top: int, counts: list[int]) -> None:
    assert step_counts(top) == counts


def test_a_limit_of_time_lowers_how_many_are_put_back() -> None:
    cost = Cost(100, 10, 3, 20)
    assert cost.within(1e9, 0.01) == 20
    assert cost.within((1000 + 10 * (2 + 4 + 3)) * 0.01 + 1e-6, 0.01) == 4
    with pytest.raises(UserError, match=r"takes about 0\.2 minutes here \(allowed: a larger --max-minutes"):
        cost.within(1.0, 0.01)
