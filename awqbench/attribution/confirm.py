"""Confirming: the sets that estimates rank first are really put back, and the damage is measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from awqbench.attribution.parts import Part
from awqbench.attribution.path import Tick, measure, put_back
from awqbench.attribution.recovery import Sample
from awqbench.attribution.units import Units
from awqbench.record.attribution import Amount, Recovery, Step
from awqbench.stats.inputs import Floats


@dataclass(frozen=True)
class Confirmer:
    """Measures what comes back on the confirming half, against the damage `before` there."""

    model: nn.Module
    deltas: Mapping[str, Tensor]
    units: Units
    before: Floats
    tick: Tick

    def alone(self, parts: Sequence[Part]) -> Recovery:
        """What comes back when only these are put back."""
        return self._sample.recovery(self.before, self._after(parts))

    def together(self, sets: Mapping[str, Sequence[Part]], count: int) -> Step:
        """What comes back with the first `count` sets."""
        chosen = list(sets)[:count]
        parts = [part for name in chosen for part in sets[name]]
        return Step(names=chosen, added_bytes=sum(part.added_bytes for part in parts), measured=self.alone(parts))

    def remainder(self, parts: Sequence[Part]) -> Amount:
        """The damage that is left with everything put back: what no weight explains."""
        return self._sample.amount(self._after(parts))

    @property
    def _sample(self) -> Sample:
        return self.units.sample(self.units.confirming)

    def _after(self, parts: Sequence[Part]) -> Floats:
        with put_back(self.model, self.deltas, [part.name for part in parts]):
            return measure(self.model, self.units.damage, self.units.confirming, self.tick)
