"""A rule's margin on the scale on which its metric is tested, and the way back for people to read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from awqbench.errors import InvalidMeasurement, UserError
from awqbench.record.schema import Metric
from awqbench.spec import GateSpec

_FARTHEST = 700.0  # the exponential of more is no float


@dataclass(frozen=True)
class Scale:
    """Losses are tested as differences, or as differences of logarithms (`logarithmic`); rules state shares or units.

    sign: -1 where higher is better. base: the baseline's value, held fixed. unit: the metric's.
    """

    logarithmic: bool
    relative: bool
    sign: float
    base: float | None
    unit: str

    def tested(self, margin: float) -> float:
        """A margin as the rule states it, as a loss on the tested scale."""
        if not self.logarithmic:
            return margin * self._base() if self.relative else margin
        share = margin if self.relative else margin / self._base()
        if self.sign > 0:
            return math.log1p(share)
        if share >= 1:
            raise UserError(f"a margin of {self.text(margin)} of what should be high can never be exceeded")
        return -math.log1p(-share)

    def tested_gain(self, margin: float) -> float:
        """How far a change may go the other way on the tested scale, for a rule of two sides: logarithms are not
        symmetric, -10 % is farther than +10 %."""
        if not self.logarithmic:
            return self.tested(margin)
        share = margin if self.relative else margin / self._base()
        if self.sign < 0:
            return math.log1p(share)
        return -math.log1p(-share) if share < 1 else _FARTHEST

    def shown(self, loss: float) -> float:
        """A loss on the tested scale, as the rule states margins."""
        if not self.logarithmic:
            return loss / self._base() if self.relative else loss
        share = math.expm1(min(loss, _FARTHEST)) if self.sign > 0 else -math.expm1(min(-loss, _FARTHEST))
        return share if self.relative else share * self._base()

    @property
    def stated_unit(self) -> str:
        """The unit in which the rule's figures are recorded."""
        return "relative" if self.relative else self.unit

    def text(self, value: float) -> str:
        """A figure in the rule's unit, for a sentence."""
        if self.relative:
            return f"{100 * value:.3g} %"
        if self.unit.split()[0] in {"share", "fraction", "accuracy"}:
            return f"{100 * value:.3g} percentage points"
        return f"{value:.4g} {self.unit}"

    def _base(self) -> float:
        assert self.base is not None
        return abs(self.base)


def scale_for(gate: GateSpec, metric: Metric, base: float | None, sign: float) -> Scale:
    """The scale of one rule on one metric.

    Raises UserError for a relative margin on a distance, which has no baseline value to be relative to;
    InvalidMeasurement where that value is zero.
    """
    logarithmic = metric.pairing in ("log-ratio", "ratio-of-medians")
    relative = gate.unit == "relative"
    if relative and base is None:
        raise UserError(
            f"gate on {metric.id}: a distance to the reference has no baseline value; use unit = 'absolute'"
        )
    if base == 0 and relative != logarithmic:
        raise InvalidMeasurement(f"{metric.id}: the baseline's value is 0: nothing can be relative to it")
    return Scale(logarithmic, relative, sign, base, metric.unit)
