"""Which rule applies to which cell and metric, and what it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from awqbench.compare.cell import Cell, by_name, find, same_items, stand_in
from awqbench.compare.groups import SLICED
from awqbench.errors import UserError, unknown_choice
from awqbench.gate.trial import sliced_attributes
from awqbench.record.schema import Metric
from awqbench.spec import GateSpec

_ABSENT = {"skipped", "not_applicable"}


@dataclass
class Matched:
    """Cells and metrics a rule judges, and one line for each that should have been measured and was not.

    `invalid` are measurements that failed, `unjudged` those that this machine or engine cannot make; `blocked` are the
    candidates that these lines concern. `not_applicable` says why an optional rule fits nothing.
    """

    pairs: list[tuple[Cell, Metric]] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    not_applicable: list[str] = field(default_factory=list)


def match(gate: GateSpec, cells: Sequence[Cell]) -> Matched:
    """What the rule judges among the cells.

    In a pattern only * and ? are wildcards: metric ids have brackets. Raises UserError when its pattern, candidate or
    attribute fits nothing, or when there is no candidate. An optional rule whose pattern or attribute fits nothing is
    not applicable, unless a cell that may have had such a metric failed.
    """
    cells = by_name(cells)
    known = sorted({name for cell in cells for name in _told(cell)})
    wanted = {name for name in known if _fits(name, gate.metric) and not any(_fits(name, no) for no in gate.exclude)}
    found = Matched()
    names = _candidates(gate, cells)
    if not wanted:
        likely = [cell for cell in cells if not gate.optional or _may_have(cell, gate)]
        failed = [_failed(cell) for cell in likely if cell.result.status == "failed"]
        absent = [_failed(cell) for cell in likely if cell.result.status in _ABSENT and cell.result.backend in names]
        if not failed and not absent:
            if gate.optional:
                return Matched(not_applicable=[f"{gate.name or gate.metric}: {gate.metric} was not measured"])
            raise UserError(f"gate on {gate.metric!r} matches no metric (there are: {', '.join(known) or 'none'})")
        # The metric may be one of those that were never measured.
        return Matched(invalid=failed, unjudged=absent, blocked=set(names))
    if not names:
        there = ", ".join(sorted({f"{cell.result.backend} ({cell.result.role})" for cell in cells}))
        raise UserError(f"gate on {gate.metric!r} has no candidate to judge; name some in 'candidates' of: {there}")
    suites = {cell.result.suite for cell in cells if wanted & _told(cell)}
    if any(sign in gate.metric for sign in "*?"):
        # Where nobody has figures, what the suite would have measured is unknown: the pattern may be about it too.
        told = {cell.result.suite for cell in cells if cell.ok}
        suites |= {c.result.suite for c in cells if c.result.suite not in told and _may_have(c, gate)}
    for name in names:
        for suite in sorted(suites):
            cell = find(cells, name, suite)
            if cell is None:
                continue
            if cell.result.status in _ABSENT:
                found.unjudged.append(f"{_failed(cell)} (limit on {gate.metric})")
                found.blocked.add(name)
                continue
            if not cell.ok:
                found.invalid.append(_failed(cell))
                found.blocked.add(name)
                continue
            lost = dict.fromkeys(why for metric, why in cell.result.unmeasured.items() if metric in wanted)
            missing_here = _missing(gate, cell, cells, wanted)
            own = [metric for metric in cell.result.metrics if metric.id in wanted]
            if lost:
                found.unjudged += [f"{name}/{suite}: {why} (limit on {gate.metric})" for why in lost]
                found.blocked.add(name)
            elif not own and not missing_here:
                # A distance to the reference that this engine cannot tell, such as KL from its top tokens alone.
                found.unjudged.append(f"{name}/{suite}: no figure of this engine matches the limit on {gate.metric}")
                found.blocked.add(name)
            for missing in missing_here:
                found.invalid.append(f"{name}/{suite}: {missing}: measured for the reference only")
                found.blocked.add(name)
            found.pairs += [(cell, metric) for metric in own]
    measured = {cell.result.backend for cell in cells if cell.result.suite in suites}
    silent = [name for name in names if name not in measured]
    # Whom a suite leaves out is not judged by it, but a rule that names him, or that would judge nobody, says so.
    if not gate.optional and (gate.candidates is not None or len(silent) == len(names)):
        for name in silent:
            found.unjudged.append(f"{name}: not measured on {', '.join(sorted(suites))} (limit on {gate.metric})")
            found.blocked.add(name)
    if gate.attribute:
        _keep_sliced(gate, found)
    _keep_directed(gate, found)
    if gate.optional and not (found.pairs or found.invalid or found.unjudged):
        what = f"by {gate.attribute}" if gate.attribute else "as something with a better side"
        found.not_applicable.append(f"{gate.name or gate.metric}: {gate.metric} was not measured {what}")
    return found


def baseline_for(
    cell: Cell, metric: Metric, cells: Sequence[Cell], reference: str, earlier: Sequence[Cell] | None
) -> Cell | None:
    """What a cell's metric is held against: the same backend in the earlier run, its reference, else this run's.

    None when the reference's cell is missing or failed. Raises UserError when the earlier run measured the suite by
    another protocol or on other items.
    """
    suite = cell.result.suite
    if earlier is not None:
        same = find(earlier, cell.result.backend, suite)
        references = [c for c in earlier if (c.result.suite, c.result.role) == (suite, "reference")]
        measured = [c for c in (same, *references) if c and c.ok and metric.id not in c.result.unmeasured]
        if measured:
            theirs = measured[0]
            _check_same_items(theirs, cell, metric)
            # Under a name of its own: this run's noise floor, found by the baseline's name, knows nothing of it.
            return theirs.called(f"{theirs.result.backend} in the baseline")
    own = find(cells, reference, suite)
    if metric.pairing == "to-reference":
        return own or stand_in(cells, reference, suite)
    return own if own is not None and own.ok and own.metric(metric.id) else None


def _check_same_items(theirs: Cell, cell: Cell, metric: Metric) -> None:
    where = f"the baseline's {theirs.result.backend}/{theirs.result.suite}"
    if metric.pairing == "to-reference" and theirs.result.role == "reference":
        return
    other = theirs.metric(metric.id)
    if other is None:
        there = ", ".join(sorted(m.id for m in theirs.result.metrics)) or "nothing"
        raise UserError(f"{where} has no {metric.id} (it has {there}): it was measured by another protocol")
    if metric.pairing == "ratio-of-medians":
        return
    if metric.pairing == "none":
        if not same_items(theirs, cell, metric.id):
            raise UserError(
                f"{where} measured {other.n} items of {metric.id} and this run {metric.n}: a gate needs the same items"
            )
        return
    before, after = (set(c.rows(metric.id)["item_id"]) for c in (theirs, cell))
    if before != after:
        raise UserError(
            f"{where} measured {len(before)} items of {metric.id} and this run {len(after)}, of which "
            f"{len(before & after)} are the same: a gate needs the same items"
        )


def _candidates(gate: GateSpec, cells: Sequence[Cell]) -> list[str]:
    names = sorted({cell.result.backend for cell in cells})
    if gate.candidates is None:
        return [name for name in names if any(c.result.backend == name and c.result.role == "candidate" for c in cells)]
    for name in gate.candidates:
        if name not in names:
            raise unknown_choice(f"candidate of the gate on {gate.metric!r}", name, names)
    return list(dict.fromkeys(gate.candidates))


def _keep_sliced(gate: GateSpec, found: Matched) -> None:
    """A pattern may also fit figures without groups, such as the gap itself: those are not judged by group."""
    offered = [sliced_attributes(cell, metric) for cell, metric in found.pairs]
    fits = [bool(names) if gate.attribute == "*" else gate.attribute in names for names in offered]
    if found.pairs and not any(fits) and not gate.optional:
        names = sorted({name for names in offered for name in names})
        raise unknown_choice(f"attribute of the gate on {gate.metric!r}", gate.attribute, names or ["none measured"])
    found.pairs = [pair for pair, fit in zip(found.pairs, fits, strict=True) if fit]


def _keep_directed(gate: GateSpec, found: Matched) -> None:
    """A loss needs to know which side is worse; figures that have none are left to two-sided rules."""
    if gate.sided == "two":
        return
    directed = [p for p in found.pairs if p[1].higher_is_better is not None or p[1].pairing == "to-reference"]
    if found.pairs and not directed and not gate.optional:
        raise UserError(f"gate on {gate.metric!r}: {found.pairs[0][1].id} has no better side; use sided = 'two'")
    found.pairs = directed


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _may_have(cell: Cell, gate: GateSpec) -> bool:
    """Whether a suite of the cell's kind could yield the rule's metric."""
    return gate.suite_kind in (None, cell.result.kind)


def _missing(gate: GateSpec, cell: Cell, cells: Sequence[Cell], wanted: set[str]) -> list[str]:
    """Metrics the rule is about that the reference has and the candidate lacks."""
    reference = [c for c in cells if c.ok and (c.result.role, c.result.suite) == ("reference", cell.result.suite)]
    return [
        metric.id
        for other in reference
        for metric in other.result.metrics
        if metric.id in wanted - _told(cell) and (not gate.attribute or metric.pairing in SLICED)
    ]


def _told(cell: Cell) -> set[str]:
    """Metrics that a cell has, or says why it has not."""
    return {metric.id for metric in cell.result.metrics} | cell.result.unmeasured.keys() if cell.ok else set()


def _failed(cell: Cell) -> str:
    return (
        f"{cell.result.backend}/{cell.result.suite}: {cell.result.status}: {cell.result.reason or 'no reason recorded'}"
    )
