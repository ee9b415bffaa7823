"""Many tests at once: Holm for the declared gates, Benjamini-Hochberg for exploratory tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from awqbench.errors import InvalidMeasurement
from awqbench.stats.inputs import Floats


def holm(p: Sequence[float] | Floats) -> Floats:
    """Adjusted p-values, float64 (k,) in the order of `p`, that keep the chance of any false alarm below alpha.

    The i-th smallest of k becomes the largest of (k - j + 1) p_(j) over j <= i, at most 1. Valid under any dependence
    of the tests: rules may share items. The more they depend on each other, the more cautious it is.
    Raises InvalidMeasurement for what is not between 0 and 1. Source: Holm, Scand. J. Statist. 6 (1979).
    """
    values = _checked(p)
    order = np.argsort(values, kind="stable")
    steps = np.arange(values.size, 0, -1) * values[order]
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def benjamini_hochberg(p: Sequence[float] | Floats) -> Floats:
    """Adjusted p-values, float64 (k,) in the order of `p`, that keep the expected share of false alarms below alpha.

    The i-th smallest of k becomes the smallest of k p_(j) / j over j >= i. The share is of what is called a discovery:
    with 20 found at 5 %, one of them may be none. Assumes independent or positively dependent tests.
    Raises InvalidMeasurement for what is not between 0 and 1. Source: Benjamini & Hochberg, JRSS B 57 (1995).
    """
    values = _checked(p)
    return np.asarray(stats.false_discovery_control(values), dtype=np.float64) if values.size else values


def _checked(p: Sequence[float] | Floats) -> Floats:
    values = np.asarray(p, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise InvalidMeasurement("p-values must be between 0 and 1")
    return values
