"""What a test needs to know of an estimate: its one-sided bounds, and the p-values those bounds invert."""

from __future__ import annotations

from typing import Protocol, Self


class Bounds(Protocol):
    """An estimate with its uncertainty: `lower(a)` and `upper(a)` each miss the truth with a probability of about a."""

    @property
    def estimate(self) -> float:
        """The point estimate, in the unit of the scores."""

    def lower(self, alpha: float) -> float:
        """The one-sided lower bound at confidence 1 - alpha."""

    def upper(self, alpha: float) -> float:
        """The one-sided upper bound at confidence 1 - alpha."""

    def p_greater(self, value: float) -> float:
        """One-sided p of 'the truth is at most `value`': small when it is shown to be greater."""

    def p_less(self, value: float) -> float:
        """One-sided p of 'the truth is at least `value`': small when it is shown to be less."""

    def scaled(self, factor: float) -> Self:
        """The same rates seen on `factor` times as many items: for planning."""


def two_sided_p(bounds: Bounds, value: float = 0.0) -> float:
    """Two-sided p of 'the truth is `value`': twice the smaller one-sided p."""
    return min(1.0, 2 * min(bounds.p_greater(value), bounds.p_less(value)))
