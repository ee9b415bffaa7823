"""The comparison of a whole run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from awqbench.compare.cell import Cell, by_name, find, stand_in
from awqbench.compare.differences import metric_difference
from awqbench.compare.groups import group_differences, sliced_pairs
from awqbench.compare.noise import Reruns
from awqbench.compare.worst import worst_groups
from awqbench.record.schema import Comparison, Difference, GroupDifference, Metric, Model, WorstGroup
from awqbench.stats.multiplicity import benjamini_hochberg

Row = TypeVar("Row", Difference, GroupDifference)
Record = TypeVar("Record", bound=Model)
MIN_GROUP = 20
_DIGITS = 12


def compare_tables(
    cells: Sequence[Cell],
    reference: str,
    noise_floor: str | Sequence[str] | None,
    *,
    min_group: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Comparison:
    """Every backend against `reference`, and every candidate against every control, on the items both measured.

    min_group: the smallest group that is judged, by suite; 20 where nothing is said. noise_floor: the backends that are
    the reference again; the largest of their differences stands beside each of the others'. Group rows are made against
    `reference` only. p-values are adjusted by Benjamini-Hochberg within the differences and within the groups of each
    suite, leaving the noise floor's out. Figures are rounded to 12 significant digits and rows are sorted, so that a
    rerun gives the same bytes. What cannot be compared is left empty and named in `notes`.
    """
    ordered = by_name(cells)
    names = (noise_floor,) if isinstance(noise_floor, str) else tuple(noise_floor or ())
    reruns = Reruns([cell for cell in ordered if cell.result.backend in names], seed)

    def asked() -> Iterator[_Asked]:
        for baseline, candidate, metric in _comparable(ordered, reference, names):
            main = baseline.result.backend == reference
            yield baseline, candidate, metric, main, reruns if main and candidate.result.role != "noise" else None

    return _compared(asked(), _not_measured(ordered), reference, names, min_group or {}, seed)


def compare_earlier(
    cells: Sequence[Cell],
    earlier: Sequence[Cell],
    label: str,
    *,
    min_group: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Comparison:
    """Every candidate and control against the same backend in an earlier run, which `label` names, on the items both
    measured; otherwise as `compare_tables` does. No noise floor is beside them: that of a run is its own reference's.
    """
    ordered = [cell for cell in by_name(cells) if cell.result.role in {"candidate", "control"}]
    notes, asked = _not_measured(ordered), list[_Asked]()
    for cell in (cell for cell in ordered if cell.ok):
        name, suite = cell.result.backend, cell.result.suite
        theirs = find(earlier, name, suite)
        if theirs is None or not theirs.ok:
            notes.append(f"{label} has no figures of {name}/{suite}")
            continue
        baseline = theirs.called(f"{name} in {label}")
        for metric in cell.result.metrics:
            if baseline.metric(metric.id):
                asked.append((baseline, cell, metric, True, None))
            else:
                notes.append(f"{label} has no {metric.id} of {name}")
    return _compared(asked, notes, label, (), min_group or {}, seed)


# Baseline, candidate and metric of a row; whether its groups are looked at; the noise floor's cells, if it has one.
_Asked = tuple[Cell, Cell, Metric, bool, Reruns | None]


def _not_measured(cells: Sequence[Cell]) -> list[str]:
    results = [cell.result for cell in cells]
    whole = [
        f"{each.backend}/{each.suite}: {each.status}: {each.reason or '?'}" for each in results if each.status != "ok"
    ]
    parts = [f"{r.backend}/{r.suite}: {why}" for r in results for why in dict.fromkeys(r.unmeasured.values())]
    return [*whole, *parts]


def _compared(
    asked: Iterable[_Asked],
    notes: list[str],
    reference: str,
    noise_floor: Sequence[str],
    smallest: Mapping[str, int],
    seed: int,
) -> Comparison:
    differences: list[Difference] = []
    groups: list[GroupDifference] = []
    worst: list[WorstGroup] = []
    for baseline, candidate, metric, main, beside in asked:
        differences.append(metric_difference(baseline, candidate, metric, seed, notes, beside))
        pairs = sliced_pairs(baseline, candidate, metric) if main else None
        if pairs is not None:
            at_least = smallest.get(candidate.result.suite, MIN_GROUP)
            groups += group_differences(baseline, candidate, metric, pairs, at_least, beside)
            worst += worst_groups(baseline, candidate, metric, pairs, at_least, seed)
    differences = _adjusted(differences)
    return Comparison(
        reference=reference,
        noise_floor=list(noise_floor),
        differences=[_rounded(row) for row in sorted(differences, key=_difference_key)],
        groups=[_rounded(row) for row in sorted(_by_suite(groups), key=_group_key)],
        worst_groups=[_rounded(row) for row in sorted(worst, key=_worst_key)],
        notes=notes,
    )


def _comparable(
    cells: Sequence[Cell], reference: str, noise_floor: Sequence[str]
) -> Iterator[tuple[Cell, Cell, Metric]]:
    """Baseline, candidate and metric of every row. Distances need no metric of the reference's own."""
    controls = sorted({cell.result.backend for cell in cells if cell.result.role == "control"})
    for candidate in cells:
        name, suite, role = candidate.result.backend, candidate.result.suite, candidate.result.role
        if not candidate.ok or role == "reference" or (role == "noise" and name not in noise_floor):
            continue
        baselines = [reference, *(controls if role == "candidate" else [])]
        for other in dict.fromkeys(baselines):
            baseline = find(cells, other, suite) or (stand_in(cells, other, suite) if other == reference else None)
            if baseline is None or other == name:
                continue
            for metric in candidate.result.metrics:
                distance = metric.pairing == "to-reference" and baseline.result.role == "reference"
                if distance or (baseline.ok and baseline.metric(metric.id)):
                    yield baseline, candidate, metric


def _by_suite(groups: Sequence[GroupDifference]) -> list[GroupDifference]:
    """Adjusted suite by suite: that KL differs between bands must not make a fairness group's p smaller."""
    suites = dict.fromkeys(row.suite for row in groups)
    return [row for suite in suites for row in _adjusted([group for group in groups if group.suite == suite])]


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    # A mean over bands repeats what its metric says already.
    tested = [row for row in rows if row.p is not None and row.role != "noise" and not getattr(row, "by_band", False)]
    adjusted = dict(zip(map(id, tested), benjamini_hochberg([row.p or 0.0 for row in tested]), strict=True))
    return [
        row.model_copy(update={"p_adjusted": float(adjusted[id(row)])}) if id(row) in adjusted else row for row in rows
    ]


def _difference_key(row: Difference) -> tuple[str, ...]:
    return row.suite, row.metric, row.baseline, row.candidate


def _group_key(row: GroupDifference) -> tuple[str, ...]:
    return row.suite, row.metric, row.attribute, row.group, row.candidate


def _worst_key(row: WorstGroup) -> tuple[str, ...]:
    return row.suite, row.metric, row.attribute, row.candidate


def _rounded(row: Record) -> Record:
    """Floats cut to 12 significant digits: the rest differs between machines with other vector units."""
    values: dict[str, Any] = {}
    for name, value in row:
        if isinstance(value, float):
            values[name] = float(f"{value:.{_DIGITS}g}")
        elif isinstance(value, Model):
            values[name] = _rounded(value)
    return row.model_copy(update=values)
