"""Many tests at once: Holm for the declared gates, Benjamini-Hochberg for exploratory tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.stats.inputs import Floats


def holm(p: Sequence[float] | Floats) -> Floats:
    """Adjusted p-values that keep the chance of any false alarm below alpha (Holm 1979), under any dependence."""
    return _adjusted(p, "holm")


def benjamini_hochberg(p: Sequence[float] | Floats) -> Floats:
    """Adjusted p-values that keep the share of false alarms below alpha (Benjamini & Hochberg 1995).

    Assumes independent or positively dependent tests.
    """
    return _adjusted(p, "fdr_bh")


def _adjusted(p: Sequence[float] | Floats, method: str) -> Floats:
    from statsmodels.stats.multitest import multipletests  # takes a second to import

    values = np.asarray(p, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise InvalidMeasurement("p-values must be between 0 and 1")
    if values.size == 0:
        return values
    return np.asarray(multipletests(values, method=method)[1], dtype=np.float64)
