"""From the declared rules to one verdict per rule, per candidate and for the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from awqbench.compare.cell import Cell
from awqbench.errors import ExitCode, InvalidMeasurement
from awqbench.gate.matching import baseline_for, match
from awqbench.gate.trial import Trial, group_trials, metric_trial
from awqbench.gate.wording import reason
from awqbench.record.schema import Comparison, RuleResult, Verdict, VerdictName
from awqbench.spec import GateSpec
from awqbench.stats.multiplicity import holm
from awqbench.stats.verdict import items_needed


def judge(
    spec_gates: Sequence[GateSpec],
    cells: Sequence[Cell],
    comparison: Comparison,
    reference: str,
    *,
    baseline_cells: Sequence[Cell] | None = None,
    policy_hash: str,
    seed: int = 0,
) -> Verdict:
    """Apply every rule to every metric it matches and every candidate.

    A rule passes when its one-sided upper bound is within the margin: passing all of them is an intersection-union
    test (Berger 1982) and needs no correction. It fails when its p, adjusted by Holm over all rules judged here, is
    below its alpha, so that many rules raise no more false alarms than one. Otherwise it is inconclusive. Single
    figures without items are compared as they are. Groups under `min_group` are listed and don't count, unless a rule
    finds no larger one. `comparison` says which losses are no larger than the reference's difference to itself.
    baseline_cells: an earlier run's, to be held against instead of the reference; where it lacks a suite this run's
    reference stands in. A limit that cannot be measured on a candidate leaves it undecided. No rules at all give an
    inconclusive verdict, for nothing shows that the candidate may ship.
    Raises UserError for a rule that fits nothing, or an earlier run with other items.
    """
    trials: list[Trial] = []
    invalid: list[str] = []
    unjudged: list[str] = []
    blocked: set[str] = set()
    for gate in spec_gates:
        found = match(gate, cells)
        invalid += found.invalid
        unjudged += found.unjudged
        blocked |= found.blocked
        for cell, metric in found.pairs:
            where = f"{cell.result.backend}/{cell.result.suite}: {metric.id}"
            baseline = baseline_for(cell, metric, cells, reference, baseline_cells)
            if baseline is None:
                invalid.append(f"{where}: {reference} has no figure to compare with")
                blocked.add(cell.result.backend)
                continue
            try:
                if gate.attribute:
                    trials += group_trials(gate, cell, baseline, metric)
                else:
                    trials.append(metric_trial(gate, cell, baseline, metric, seed))
            except InvalidMeasurement as error:
                invalid.append(f"{where}: {error}")
                blocked.add(cell.result.backend)
    within = [row for row in comparison.differences if row.within_noise]
    rules = _results(trials, {(row.suite, row.metric, row.baseline, row.candidate) for row in within})
    judged = [rule for rule, trial in zip(rules, trials, strict=True) if not trial.small]
    candidates = {
        name: _worst([r.verdict for r in judged if r.candidate == name], name in blocked)
        for name in sorted({rule.candidate for rule in rules} | blocked)
    }
    return Verdict(
        policy_hash=policy_hash,
        overall=_worst([rule.verdict for rule in judged], bool(invalid or unjudged)),
        candidates=candidates,
        rules=rules,
        invalid=list(dict.fromkeys(invalid)),
        unjudged=list(dict.fromkeys(unjudged)),
    )


def policy_hash(gates: Sequence[GateSpec]) -> str:
    """SHA-256 of the rules as canonical JSON: the same rules in the same order give the same hash."""
    data = [gate.model_dump(mode="json") for gate in gates]
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def exit_code(verdict: Verdict) -> ExitCode:
    """What the verdict means to a CI job. A measurement that failed outranks what the others say."""
    if verdict.invalid:
        return ExitCode.MEASUREMENT_FAILED
    if not verdict.rules:
        return ExitCode.INCONCLUSIVE  # nothing was judged
    codes = {"pass": ExitCode.DONE, "fail": ExitCode.GATE_FAILED, "inconclusive": ExitCode.INCONCLUSIVE}
    return codes[verdict.overall]


def _results(trials: Sequence[Trial], noisy: set[tuple[str, ...]]) -> list[RuleResult]:
    tested = [trial.decision.p_worse for trial in trials if trial.decision]
    adjusted = iter(holm(tested))
    results = []
    for trial in trials:
        result = _result(trial, float(next(adjusted)) if trial.decision else None, len(tested))
        row = (result.suite, result.metric, trial.baseline, result.candidate)
        if result.verdict != "pass" and result.group is None and row in noisy:
            result.reason += "; no larger than the reference's difference to itself"
        results.append(result)
    return results


def _result(trial: Trial, p_holm: float | None, family: int) -> RuleResult:
    gate, scale, decision = trial.gate, trial.scale, trial.decision
    verdict = _verdict(trial, p_holm)
    needed = None
    if verdict == "inconclusive" and trial.bounds:
        # A loss beyond the margin has to be shown among all rules, one within it (as is any gain) only by itself.
        beyond = trial.estimate > trial.margin or (gate.sided == "two" and trial.estimate < -trial.margin)
        alpha = gate.alpha / family if beyond else gate.alpha
        needed = items_needed(trial.bounds, trial.n, trial.margin, alpha, sided=gate.sided)
    sentence = reason(trial, verdict, needed, family, p_holm)
    if verdict == "inconclusive" and gate.on_inconclusive != "inconclusive" and not trial.small:
        verdict = gate.on_inconclusive
        sentence += f"; the policy counts an undecided rule as {verdict}"
    return RuleResult(
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
        estimate=_rounded(scale.shown(trial.estimate)),
        lower=_rounded(scale.shown(decision.lower)) if decision else None,
        upper=_rounded(scale.shown(decision.upper)) if decision else None,
        alpha=gate.alpha,
        n=trial.n,
        n_needed=needed,
        p_worse=_rounded(decision.p_worse) if decision else None,
        p_holm=_rounded(p_holm) if p_holm is not None else None,
        reason=sentence,
    )


def _verdict(trial: Trial, p_holm: float | None) -> VerdictName:
    if trial.point:
        loss = abs(trial.estimate) if trial.gate.sided == "two" else trial.estimate
        return "pass" if loss <= trial.margin else "fail"
    if trial.decision is None:
        return "inconclusive"
    if trial.decision.verdict == "fail" and p_holm is not None and p_holm >= trial.gate.alpha:
        return "inconclusive"
    return trial.decision.verdict


def _worst(verdicts: Sequence[VerdictName], blocked: bool) -> VerdictName:
    """Fail outranks inconclusive outranks pass; nothing judged, or not all that should be, is no pass."""
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts and not blocked and set(verdicts) == {"pass"} else "inconclusive"


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")
