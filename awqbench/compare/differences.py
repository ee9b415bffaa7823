"""Rows of the comparison table: one metric of one backend against one baseline."""

from __future__ import annotations

from awqbench.compare.bias import bias_flips
from awqbench.compare.cell import Cell
from awqbench.compare.effect import Effect, measure_effect, relative_change
from awqbench.compare.noise import Floor, Reruns
from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import Difference, Metric

_TAIL = 0.025
RELATIVE = "relative"


def metric_difference(
    baseline: Cell, candidate: Cell, metric: Metric, seed: int, notes: list[str], reruns: Reruns | None = None
) -> Difference:
    """One row; what could not be computed stays empty and is explained in `notes`. reruns: the noise floor's cells."""
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
    floor = reruns.floor(baseline, metric, effect, result.suite) if reruns else None
    return row.model_copy(update=_figures(effect, metric) | (_beside(floor, effect, metric) if floor else {}))


def _delta_unit(metric: Metric) -> str:
    """Sizes and times change by a ratio; near zero, where shares and scores may lie, a ratio says nothing."""
    if metric.pairing in ("difference", "to-reference"):
        return metric.unit
    return metric.unit if metric.pairing == "none" and metric.unit in ("share", "score") else RELATIVE


def _figures(effect: Effect, metric: Metric) -> dict[str, object]:
    low = high = None
    if effect.bounds:
        low, high = effect.bounds.lower(_TAIL), effect.bounds.upper(_TAIL)
        if effect.pairs and effect.pairs.reference is None:
            low, high = metric.cut(low, high)
    return {
        "baseline_value": effect.baseline_value,
        "candidate_value": effect.candidate_value,
        "delta": _delta(effect.estimate, effect, metric),
        "ci_low": _shown(low, effect),
        "ci_high": _shown(high, effect),
        "mde": _shown(effect.mde, effect),
        "test": effect.test,
        "p": effect.p,
        "n": effect.n,
        "clusters": effect.clusters,
        "flips": effect.flips,
        "bias_flips": bias_flips(effect.pairs, metric) if effect.pairs else None,
    }


def _beside(floor: Floor, effect: Effect, metric: Metric) -> dict[str, object]:
    return {
        "noise": _delta(floor.delta, effect, metric),
        "noise_reach": _delta(floor.reach, effect, metric),
        "noise_flips": floor.flips,
        "within_noise": floor.holds(effect.estimate),
    }


def _delta(value: float, effect: Effect, metric: Metric) -> float | None:
    """A change on the tested scale, in the row's delta_unit."""
    if metric.pairing == "none" and _delta_unit(metric) == RELATIVE:
        return value / abs(effect.baseline_value) if effect.baseline_value else None
    return _shown(value, effect)


def _shown(value: float | None, effect: Effect) -> float | None:
    return value if value is None or not effect.logarithmic else relative_change(value)
