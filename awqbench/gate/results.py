"""Trials to rule results: the family corrected, the noise floor heard, the verdict put in words."""

from __future__ import annotations

from collections.abc import Sequence

from awqbench.gate.trial import Trial
from awqbench.gate.wording import reason
from awqbench.record.schema import Comparison, RuleResult
from awqbench.stats.multiplicity import holm
from awqbench.stats.verdict import items_needed

Place = tuple[str | None, ...]  # suite, metric, baseline, candidate, attribute, group


def within_noise(comparison: Comparison) -> set[Place]:
    """The differences, of metrics and of groups, that are no larger than the reference's difference to itself."""
    whole = [(d.suite, d.metric, d.baseline, d.candidate, None, None) for d in comparison.differences if d.within_noise]
    groups = [
        (g.suite, g.metric, g.baseline, g.candidate, g.attribute, g.group) for g in comparison.groups if g.within_noise
    ]
    return {*whole, *groups}


def results(trials: Sequence[Trial], noisy: set[Place]) -> list[RuleResult]:
    """One result per trial, in order; p is adjusted by Holm over all of them."""
    adjusted = holm([trial.decision.p_worse for trial in trials if trial.decision])
    following = iter(adjusted)
    return [
        _result(trial, float(next(following)) if trial.decision else None, len(adjusted), _place(trial) in noisy)
        for trial in trials
    ]


def mapped(rule: RuleResult, trial: Trial) -> RuleResult:
    """An undecided result as its policy counts it."""
    counted = trial.gate.on_inconclusive
    if rule.verdict != "inconclusive" or counted == "inconclusive" or trial.small:
        return rule
    sentence = f"{rule.reason}; the policy counts an undecided rule as {counted}"
    return rule.model_copy(update={"verdict": counted, "reason": sentence})


def _place(trial: Trial) -> Place:
    result = trial.cell.result
    return result.suite, trial.metric.id, trial.baseline, result.backend, trial.attribute, trial.group


def _result(trial: Trial, p_holm: float | None, family: int, noisy: bool) -> RuleResult:
    gate, scale, decision = trial.gate, trial.scale, trial.decision
    verdict = trial.verdict(p_holm)
    needed = _needed(trial, family) if verdict == "inconclusive" else None
    rule = RuleResult(
        rule=gate.name or gate.metric,
        kind="difference-in-differences" if trial.group else "non-inferiority",
        suite=trial.cell.result.suite,
        metric=trial.metric.id,
        candidate=trial.cell.result.backend,
        attribute=trial.attribute,
        group=trial.group,
        verdict=verdict,
        margin=gate.margin,
        unit=scale.stated_unit,
        estimate=rounded(scale.shown(trial.estimate)),
        lower=rounded(trial.shown_bounds[0]) if trial.shown_bounds else None,
        upper=rounded(trial.shown_bounds[1]) if trial.shown_bounds else None,
        alpha=gate.alpha,
        n=trial.n,
        n_needed=needed,
        n_needed_at_least=needed is not None and trial.few,
        p_worse=rounded(decision.p_worse) if decision else None,
        p_holm=rounded(p_holm) if p_holm is not None else None,
        reason=reason(trial, verdict, needed, family, p_holm),
    )
    if noisy and verdict != "pass":
        rule = _excused(rule)
    return rule if verdict == "fail" else mapped(rule, trial)


def _needed(trial: Trial, family: int) -> int | None:
    """Items that would decide: what has to be shown among all rules is planned with Bonferroni's alpha, what is within
    the margin (as is any gain) by itself. Under zero tolerance a loss is decided by whichever comes first: that it is
    there, or that it is within the margin."""
    if trial.bounds is None:
        return None
    gate, seen = trial.gate, trial.bounds.estimate

    def planned(margin: float, gain: float) -> int | None:
        assert trial.bounds is not None
        beyond = seen > margin or (gate.sided == "two" and seen < -gain)
        alpha = gate.alpha / family if beyond else gate.alpha
        return items_needed(trial.bounds, trial.n, margin, alpha, sided=gate.sided, gain=gain)

    plans = [planned(trial.margin, trial.gain)]
    if gate.zero_tolerance and (seen > 0 or (gate.sided == "two" and seen < 0)):
        plans.append(planned(0.0, 0.0))
    return min((plan for plan in plans if plan is not None), default=None)


def _excused(rule: RuleResult) -> RuleResult:
    """A loss within the noise floor fails nothing, for the reference lost as much to itself. Nor does a policy that
    counts open questions as passed let it pass: noise must not hide damage."""
    sentence = f"{rule.reason}; within the noise floor: no larger than the reference's difference to itself"
    return rule.model_copy(update={"verdict": "inconclusive", "reason": sentence})


def rounded(value: float) -> float:
    """Cut to 12 significant digits: the rest differs between machines."""
    return float(f"{value:.12g}")
