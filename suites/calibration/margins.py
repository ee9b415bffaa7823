"""Which margins can the items of a run decide? How often each rule would pass two models that differ in nothing.

python suites/calibration/margins.py RUN --policy suites/presets/default.toml --times 0.3334 1

Clusters are drawn with replacement from the run, each with the changes of its items and a sign of its own: as many
flips, and as alike within a question, as compression caused, and no loss. A rule with an attribute passes where all of
its groups do. "Smallest" is the margin that 80 % of the draws pass, as the rule states margins. Distances to a
reference are left out: of two equal models they are zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

import awqbench
from awqbench.compare.cell import Cell
from awqbench.compare.effect import is_binary
from awqbench.compare.groups import group_masks
from awqbench.compare.pairs import pair_items
from awqbench.gate.collect import collect
from awqbench.gate.trial import Trial
from awqbench.policies import declared, load_policy
from awqbench.score import cells_of
from awqbench.spec import GateSpec, parse_spec
from awqbench.stats.did import contrast_bounds
from awqbench.stats.paired import mean_bounds

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
POWER = 0.8


@dataclass(frozen=True)
class Judged:
    """What one rule says of one metric: changes of the items that it is about, [n], their clusters and groups."""

    trial: Trial
    change: Floats
    codes: Codes
    members: tuple[npt.NDArray[np.bool_], ...]  # none: the metric as a whole
    binary: bool

    def uppers(self, clusters: int, draws: int, rng: np.random.Generator) -> Floats:
        """The largest upper bound of a loss in each draw of so many clusters, on the tested scale."""
        blocks = [np.flatnonzero(self.codes == code) for code in range(int(self.codes.max()) + 1)]
        found = np.empty(draws)
        for draw in range(draws):
            taken = rng.integers(len(blocks), size=clusters)
            sizes = [len(blocks[i]) for i in taken]
            rows, codes = np.concatenate([blocks[i] for i in taken]), np.repeat(np.arange(clusters), sizes)
            change = self.change[rows] * np.repeat(rng.choice([-1.0, 1.0], size=clusters), sizes)
            found[draw] = max(self._uppers(change, rows, codes))
        return found

    def _uppers(self, change: Floats, rows: Codes, codes: Codes) -> Iterator[float]:
        gate = self.trial.gate
        for member in self.members or (None,):
            if member is None:
                bounds = mean_bounds(change, codes, binary=self.binary)
            else:
                bounds = contrast_bounds(change, member[rows], codes, binary=self.binary)
            yield bounds.upper(gate.alpha)
            if gate.sided == "two":
                yield -bounds.lower(gate.alpha)


def judged(gates: Sequence[GateSpec], cells: Sequence[Cell], reference: str) -> Iterator[Judged]:
    """Each rule on each metric that has paired items; groups that are too small are left out, as the gate does."""
    trials = [t for t in collect(gates, cells, reference).trials if t.decision and t.metric.pairing != "to-reference"]
    for _, found in groupby(trials, lambda t: (id(t.gate), id(t.cell), t.metric.id, t.attribute)):
        trial, *others = found
        where = trial.baseline, trial.cell.result.suite
        baseline = next(cell for cell in cells if (cell.result.backend, cell.result.suite) == where)
        pairs = pair_items(baseline, trial.cell, trial.metric.id, distance=False, cluster=trial.gate.cluster)
        there, members = np.ones(pairs.n, dtype=np.bool_), []
        if trial.attribute is not None:
            masks = [group_masks(pairs, trial.attribute, str(each.group)) for each in (trial, *others)]
            there, members = masks[0][0], [member for _, member, _ in masks]
        codes = np.unique(np.asarray(pairs.clusters)[there], return_inverse=True)[1]
        kept = tuple(member[there] for member in members)
        yield Judged(trial, pairs.change()[there], codes, kept, is_binary(pairs, trial.metric))


def main() -> None:
    """A line per rule, metric and number of clusters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--policy", help="a policy's name or file; by default the run's own")
    parser.add_argument("--backend", default="awq")
    parser.add_argument("--times", type=float, nargs="+", default=[1.0], help="clusters, of those in the run")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    run, rng = awqbench.load_run(asked.run), np.random.default_rng(asked.seed)
    rules = load_policy(asked.policy) if asked.policy else declared(parse_spec(run.manifest.spec))
    gates = [gate.model_copy(update={"optional": True}) for gate in rules.gates]  # the run need not hold everything
    cells = [c for c in cells_of(run) if c.result.backend in (asked.backend, run.comparison.reference)]
    print(
        "| rule | metric | items | clusters | changed | margin | passed | smallest |\n|---|---|--:|--:|--:|--:|--:|--:|"
    )
    for rule in judged(gates, cells, run.comparison.reference):
        whole = int(rule.codes.max()) + 1
        for clusters in (max(2, round(times * whole)) for times in asked.times):
            uppers, trial = rule.uppers(clusters, asked.draws, rng), rule.trial
            smallest = trial.scale.text(trial.scale.shown(float(np.quantile(uppers, POWER))))
            print(
                f"| {trial.gate.name} | {trial.metric.id} {trial.attribute or ''} | "
                f"{round(rule.change.size * clusters / whole)} | {clusters} | {(rule.change != 0).mean():.1%} | "
                f"{trial.scale.text(trial.gate.margin)} | {(uppers < trial.margin).mean():.0%} | {smallest} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
