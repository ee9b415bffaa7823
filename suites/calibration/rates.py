"""What a simulation counts, and the binomial limits it is held against."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from awqbench.stats.bounds import Bounds

FAMILY = 0.01  # chance that any of all counts leaves its limits although every rate is as promised
# Promises that no remedy keeps; docs/statistics.md names each as a limit.
KNOWN = {
    "flips": r"^(5|10) clusters .*70 % of flips shared.*loss 5|100 % of flips shared",
    "means": r"^log-normal|^exponential, (20 items|5 clusters|10 clusters|40 clusters of 1)",
    "batches": r"^(4|8) windows.* 0\.5$",
    "documents": r" 20 documents",
    "bootstrap": r"^log-normal|^exponential, 20 items|10 clusters",
    "sign flip": r"^exponential",
    "power": r"(5|10) clusters of (20|40)$|773 items$",
}
Draws = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """How often something happened in `runs` simulated comparisons, and how often it may, or should.

    at most: false alarms; fewer are no defect. at least: power. about: no promise is made, the figure is for planning.
    `hits` is a sum of shares where each run gives a share (false discoveries): its variance is below the binomial one.
    """

    study: str
    scenario: str
    measure: str
    hits: float
    runs: int
    nominal: float
    promise: Literal["at most", "at least", "about"] = "at most"

    @property
    def share(self) -> float:
        """Observed rate."""
        return self.hits / self.runs

    @property
    def known(self) -> bool:
        """Whether the page names this scenario as a limit."""
        return self.study in KNOWN and bool(re.search(KNOWN[self.study], self.scenario))

    def limits(self, counts: int) -> tuple[float, float]:
        """Smallest and largest hits that fit the nominal rate, each with FAMILY shared equally over `counts` rates."""
        tail = FAMILY / counts
        return float(stats.binom.ppf(tail, self.runs, self.nominal)), float(
            stats.binom.isf(tail, self.runs, self.nominal)
        )

    def broken(self, counts: int) -> bool:
        """Whether the promise is not kept beyond what chance explains."""
        low, high = self.limits(counts)
        return self.hits > high if self.promise == "at most" else self.promise == "at least" and self.hits < low


def tails(bounds: Sequence[Bounds], truth: float) -> tuple[Draws, Draws]:
    """One-sided p-values of every simulated comparison at the truth: that it is less, that it is greater."""
    return np.array([b.p_less(truth) for b in bounds]), np.array([b.p_greater(truth) for b in bounds])


def both_tails(study: str, scenario: str, less: Draws, greater: Draws) -> Iterator[Rate]:
    """A margin that equals the truth passed or failed at 5 %, and a 95 % interval that misses it on either side."""
    for measure, p, nominal in (
        ("passed at the margin", less, 0.05),
        ("failed at the margin", greater, 0.05),
        ("95 % interval below the truth", less, 0.025),
        ("95 % interval above the truth", greater, 0.025),
    ):
        yield Rate(study, scenario, measure, float((p < nominal).sum()), p.size, nominal)


def alarms(study: str, scenario: str, measure: str, p: Draws, nominal: float = 0.05) -> Rate:
    """How often a p-value is below its level."""
    return Rate(study, scenario, measure, float((p < nominal).sum()), p.size, nominal)
