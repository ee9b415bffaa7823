"""The reference measured again must itself keep the limits, or nothing can be judged by them."""

from __future__ import annotations

from collections.abc import Sequence

from awqbench.compare.cell import Cell, find, stand_in
from awqbench.errors import InvalidMeasurement, UserError
from awqbench.gate.trial import Trial, group_trials, metric_trial
from awqbench.stats.multiplicity import holm


def broken_reruns(
    trials: Sequence[Trial], cells: Sequence[Cell], reference: str, seed: int
) -> tuple[list[str], set[str]]:
    """One line for each limit that the reference fails against itself, and the candidates judged by these limits.

    Such a reference is no yardstick for that limit: a loss could hide in its noise, and a pass could be luck. Only
    limits above zero are asked of it; a limit of zero is broken by any rounding. p is adjusted by Holm over all that
    is asked, so that a policy of many rules is not called unsound by chance.
    """
    reruns = [cell for cell in cells if cell.ok and cell.result.role == "noise"]
    asked: dict[tuple[int, str, str], list[Trial]] = {}
    for trial in trials:
        if trial.margin > 0:
            asked.setdefault((id(trial.gate), trial.cell.result.suite, trial.metric.id), []).append(trial)
    tried: list[tuple[Trial, list[Trial]]] = []
    for (_, suite, metric_id), judged in asked.items():
        baseline = find(cells, reference, suite) or stand_in(cells, reference, suite)
        rule = judged[0].gate.model_copy(update={"zero_tolerance": False})
        for cell in (rerun for rerun in reruns if rerun.result.suite == suite):
            metric = cell.metric(metric_id)
            if metric is None or baseline is None:
                continue
            try:
                found = group_trials(rule, cell, baseline, metric) if rule.attribute else []
                found = found or [metric_trial(rule, cell, baseline, metric, seed)]
            except (InvalidMeasurement, UserError):
                continue  # a single figure of a share of the items, or too few of them
            tried += [(trial, judged) for trial in found]
    adjusted = iter(holm([trial.decision.p_worse for trial, _ in tried if trial.decision]))
    broken = [
        (trial, judged)
        for trial, judged in tried
        if trial.verdict(float(next(adjusted)) if trial.decision else None) == "fail"
    ]
    return [_line(trial, reference) for trial, _ in broken], {t.cell.result.backend for _, own in broken for t in own}


def _line(trial: Trial, reference: str) -> str:
    result, scale = trial.cell.result, trial.scale
    of = f" for {trial.attribute} = {trial.group}" if trial.group else ""
    return (
        f"{result.backend}/{result.suite}: {trial.metric.id}{of}: {reference} differs from itself by "
        f"{scale.text(abs(scale.shown(trial.estimate)))}, beyond the limit of {scale.text(trial.gate.margin)}: nothing "
        "can be judged by it until that is mended"
    )
