"""Every rule on every metric and group that it fits, and what could not be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from awqbench.compare.cell import Cell
from awqbench.errors import InvalidMeasurement
from awqbench.gate.matching import baseline_for, match
from awqbench.gate.trial import Trial, group_trials, metric_trial
from awqbench.spec import GateSpec


@dataclass
class Collected:
    """Trials in the order of the rules, and one line for each thing that kept a rule from being judged.

    `invalid` are measurements that failed, `unjudged` those that this machine or engine cannot make, `not_applicable`
    optional rules that fit nothing; `blocked` are the candidates that the first two concern.
    """

    trials: list[Trial] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    not_applicable: list[str] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)


def collect(
    gates: Sequence[GateSpec],
    cells: Sequence[Cell],
    reference: str,
    baseline_cells: Sequence[Cell] | None = None,
    seed: int = 0,
) -> Collected:
    """Hold every matched metric against its baseline. Raises UserError for a rule that fits nothing and must."""
    found = Collected()
    for gate in gates:
        matched = match(gate, cells)
        found.invalid += matched.invalid
        found.unjudged += matched.unjudged
        found.not_applicable += matched.not_applicable
        found.blocked |= matched.blocked
        for cell, metric in matched.pairs:
            where = f"{cell.result.backend}/{cell.result.suite}: {metric.id}"
            baseline = baseline_for(cell, metric, cells, reference, baseline_cells)
            if baseline is None:
                found.invalid.append(f"{where}: {reference} has no figure to compare with")
                found.blocked.add(cell.result.backend)
                continue
            try:
                if gate.attribute:
                    found.trials += group_trials(gate, cell, baseline, metric)
                else:
                    found.trials.append(metric_trial(gate, cell, baseline, metric, seed))
            except InvalidMeasurement as error:
                found.invalid.append(f"{where}: {error}")
                found.blocked.add(cell.result.backend)
    return found
