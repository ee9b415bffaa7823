"""The rules on an accuracy and on its groups, applied to arrays: what the gate does, without its tables and sentences.

Thousands of samples are judged; power.py has the gate itself judge the first of each kind, and they must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from awqbench.compare.cell import Cell
from awqbench.record.schema import GROUP_PREFIX
from awqbench.spec import GateSpec
from awqbench.stats.bounds import Bounds
from awqbench.stats.did import contrast_bounds
from awqbench.stats.multiplicity import holm
from awqbench.stats.paired import mean_bounds
from awqbench.stats.verdict import Decision, decide

Rule = tuple[str, str]  # metric pattern, and attribute=group or nothing


class Losses:
    """Right/wrong losses of one metric, and the groups of their items, by cluster."""

    def __init__(self, reference: Cell, candidate: Cell, metric: str) -> None:
        after = candidate.rows(metric)
        before = reference.rows(metric).set_index("item_id")["score"].loc[after["item_id"]].to_numpy(np.float64)
        self.loss = before - after["score"].to_numpy(np.float64)
        self.labels = {
            str(name).removeprefix(GROUP_PREFIX): after[name].fillna("").to_numpy(str)
            for name in after.columns
            if str(name).startswith(GROUP_PREFIX)
        }
        self.places = {str(name): np.asarray(rows) for name, rows in after.groupby("cluster").indices.items()}

    def verdicts(self, clusters: Sequence[str], gates: Sequence[GateSpec]) -> dict[Rule, str]:
        """Each rule's verdict on these clusters, Holm over all of them; groups under `min_group` are left out."""
        places = [self.places[cluster] for cluster in clusters]
        at, codes = np.concatenate(places), np.repeat(np.arange(len(places)), [len(place) for place in places])
        loss, rules, decisions, levels = self.loss[at], [], [], []
        for gate in gates:
            if gate.attribute is None:
                rules.append((gate.metric, ""))
                decisions.append(_decide(mean_bounds(loss, codes, binary=True), gate))
                levels.append(gate.alpha)
                continue
            for attribute, all_labels in self.labels.items():
                labels = all_labels[at]
                there = labels != ""
                for group in np.unique(labels[there]):
                    member = labels[there] == group
                    if min(member.sum(), (~member).sum()) < gate.min_group:
                        continue
                    bounds = contrast_bounds(loss[there], member, _dense(codes[there]), binary=True)
                    rules.append((gate.metric, f"{attribute}={group}"))
                    decisions.append(_decide(bounds, gate))
                    levels.append(gate.alpha)
        adjusted = holm([decision.p_worse for decision in decisions])
        return {
            rule: "fail" if p < alpha else "inconclusive" if decision.verdict == "fail" else decision.verdict
            for rule, decision, p, alpha in zip(rules, decisions, adjusted, levels, strict=True)
        }


def _decide(bounds: Bounds, gate: GateSpec) -> Decision:
    """Against the margin; under zero tolerance p_worse is that of any loss at all."""
    decision = decide(bounds, gate.margin, gate.alpha)
    return replace(decision, p_worse=bounds.p_greater(0.0)) if gate.zero_tolerance else decision


def _dense(codes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return np.unique(codes, return_inverse=True)[1]
