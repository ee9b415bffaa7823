"""Rows of the comparison table: one metric of one backend against one baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence

from awqbench.compare.cell import Cell
from awqbench.compare.effect import Effect, measure_effect
from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import Difference, Flips, Metric

_TAIL = 0.025
RELATIVE = "relative"


def metric_difference(baseline: Cell, candidate: Cell, metric: Metric, seed: int, notes: list[str]) -> Difference:
    """One row; what could not be computed stays empty and is explained in `notes`."""
    result = candidate.result
    assert result.role != "reference"
    where = f"{result.backend}/{result.suite} {metric.id} against {baseline.result.backend}"
    other = baseline.metric(metric.id)
    row = Difference(
        suite=result.suite,
        metric=metric.id,
        protocol=metric.protocol,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        pairing=metric.pairing,
        baseline=baseline.result.backend,
        candidate=result.backend,
        role=result.role,
        baseline_value=other.value if other else None,
        candidate_value=metric.value,
        delta=None,
        delta_unit=_delta_unit(metric),
        n=0,
    )
    try:
        effect = measure_effect(baseline, candidate, metric, seed=seed)
    except InvalidMeasurement as error:
        if (result.role, metric.pairing) != ("noise", "none"):  # the noise floor is measured on fewer items by design
            notes.append(f"{where}: {error}")
        return row
    if effect.pairs and result.role != "noise" and (effect.pairs.only_baseline or effect.pairs.only_candidate):
        notes.append(
            f"{where}: compared on the {effect.n} items both measured; {effect.pairs.only_baseline} are only in the "
            f"baseline, {effect.pairs.only_candidate} only in the candidate"
        )
    return row.model_copy(update=_figures(effect, metric))


def _delta_unit(metric: Metric) -> str:
    """Sizes and times change by a ratio; near zero, where shares and scores may lie, a ratio says nothing."""
    if metric.pairing in ("difference", "to-reference"):
        return metric.unit
    return metric.unit if metric.pairing == "none" and metric.unit in ("share", "score") else RELATIVE


def _figures(effect: Effect, metric: Metric) -> dict[str, object]:
    low = high = None
    if effect.bounds:
        low, high = effect.bounds.lower(_TAIL), effect.bounds.upper(_TAIL)
        if metric.pairing == "to-reference" and effect.pairs and effect.pairs.reference is None:
            low = max(low, 0.0)  # a distance is never negative
    delta: float | None = effect.estimate
    if metric.pairing == "none" and _delta_unit(metric) == RELATIVE:
        delta = effect.estimate / abs(effect.baseline_value) if effect.baseline_value else None
    return {
        "baseline_value": effect.baseline_value,
        "candidate_value": effect.candidate_value,
        "delta": _shown(delta, effect),
        "ci_low": _shown(low, effect),
        "ci_high": _shown(high, effect),
        "mde": _shown(effect.mde, effect),
        "test": effect.test,
        "p": effect.p,
        "n": effect.n,
        "clusters": effect.clusters,
        "flips": effect.flips,
    }


def _shown(value: float | None, effect: Effect) -> float | None:
    return value if value is None or not effect.logarithmic else math.expm1(min(value, 700.0))


def with_noise(rows: Sequence[Difference], reference: str) -> list[Difference]:
    """The rows against the reference, with the reference's difference to itself beside them."""
    floors = {(row.suite, row.metric): row for row in rows if row.role == "noise" and row.baseline == reference}
    shown = []
    for row in rows:
        floor = floors.get((row.suite, row.metric))
        if floor is None or row.role == "noise" or row.baseline != reference or floor.delta is None:
            shown.append(row)
            continue
        update = {"noise": floor.delta, "noise_flips": floor.flips, "within_noise": _within(row, floor)}
        shown.append(row.model_copy(update=update))
    return shown


def _within(row: Difference, floor: Difference) -> bool | None:
    """No larger than the reference's own difference, in the delta and in the rate of flips (which may cancel)."""
    if row.delta is None or floor.delta is None:
        return None
    smaller = abs(row.delta) <= abs(floor.delta)
    if row.flips is None or floor.flips is None:
        return smaller
    return smaller and _rate(row.flips) <= _rate(floor.flips)


def _rate(flips: Flips) -> float:
    return (flips.correct_to_wrong + flips.wrong_to_correct) / flips.n
