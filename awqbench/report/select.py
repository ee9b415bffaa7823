"""What the sections ask of a run: cells in order, differences of a suite, limits in the unit of a difference."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch

from awqbench.gate.wording import unjudged
from awqbench.record.reader import Cell, Run
from awqbench.record.schema import Difference, Metric, RuleResult

ROLES = ("reference", "candidate", "control", "noise")
KINDS = ("perplexity", "divergence", "tasks", "fairness", "latency")
OUTCOMES = ("fail", "inconclusive", "pass", "not judged")


def ordered(cells: Iterable[Cell]) -> list[Cell]:
    """Cells by suite kind, then the reference first, candidates, controls and the noise floor."""
    known = {kind: i for i, kind in enumerate(KINDS)}
    return sorted(
        cells,
        key=lambda c: (
            known.get(c.result.kind, len(KINDS)),
            c.result.suite,
            ROLES.index(c.result.role),
            c.result.backend,
        ),
    )


def unique(names: Iterable[str]) -> list[str]:
    """Names without repeats, in the order of their first appearance."""
    return list(dict.fromkeys(names))


def reference_name(run: Run) -> str | None:
    """The backend every difference is taken against."""
    if run.comparison:
        return run.comparison.reference
    return next((c.result.backend for c in run.cells if c.result.role == "reference"), None)


def model_label(run: Run) -> str:
    """What people call the reference model."""
    model = run.manifest.model
    return str(model.get("label") or model.get("source") or "Unnamed model")


def roles(run: Run) -> dict[str, str]:
    """Backend -> role of the whole run, in display order."""
    return roles_of(run.cells)


def roles_of(cells: Iterable[Cell]) -> dict[str, str]:
    """Backend -> role of some cells, the reference first."""
    found = {c.result.backend: c.result.role for c in cells}
    return dict(sorted(found.items(), key=lambda pair: (ROLES.index(pair[1]), pair[0])))


def candidates(run: Run) -> list[str]:
    """Backends that are judged: those with a verdict, and candidates that no rule judged."""
    judged = list(run.verdict.candidates) if run.verdict else []
    return unique([*judged, *(name for name, role in roles(run).items() if role == "candidate")])


def differences(run: Run, suite: str | None = None) -> list[Difference]:
    """Differences to the reference, without the noise floor's own, in the order of the comparison."""
    if run.comparison is None:
        return []
    reference = run.comparison.reference
    return [
        d
        for d in run.comparison.differences
        if d.baseline == reference and d.role != "noise" and suite in (None, d.suite) and not d.by_band
    ]


def head_to_head(run: Run, suite: str) -> list[Difference]:
    """Differences between two quantized models: a candidate against a control."""
    if run.comparison is None:
        return []
    reference = run.comparison.reference
    return [d for d in run.comparison.differences if d.suite == suite and d.baseline != reference and not d.by_band]


def rules_of(run: Run, candidate: str | None = None) -> list[RuleResult]:
    """Rules with the most serious verdict first; limits on whole metrics before those on groups."""
    rules = run.verdict.rules if run.verdict else []
    chosen = [rule for rule in rules if candidate in (None, rule.candidate)]
    return sorted(chosen, key=lambda r: (OUTCOMES.index(outcome(r)), r.group is not None, r.candidate))


def outcome(rule: RuleResult) -> str:
    """The verdict, or 'not judged' for a rule that could not be tested, such as one on a group that is too small."""
    return "not judged" if rule.verdict == "inconclusive" and unjudged(rule) else rule.verdict


def limit(run: Run, difference: Difference) -> float | None:
    """The tightest declared limit on this difference, signed and in its delta_unit; None without a rule."""
    found = []
    for rule in run.verdict.rules if run.verdict else []:
        same = (rule.suite, rule.metric, rule.candidate) == (difference.suite, difference.metric, difference.candidate)
        if not same or rule.group is not None:
            continue
        scale = abs(difference.baseline_value) if difference.baseline_value else None
        if (rule.unit == "relative") == (difference.delta_unit == "relative"):
            found.append(rule.margin)
        elif scale:
            found.append(rule.margin * scale if rule.unit == "relative" else rule.margin / scale)
    sign = -1 if difference.higher_is_better else 1
    return sign * min(found) if found else None


def find_metric(run: Run, suite: str, metric: str) -> Metric | None:
    """The metric as any backend recorded it."""
    for cell in run.cells:
        if cell.result.suite == suite:
            for found in cell.result.metrics:
                if found.id == metric:
                    return found
    return None


def effect(difference: Difference) -> str:
    """What a difference says, in words: colour alone must not."""
    if difference.delta is None:
        return "unmeasured"
    if difference.within_noise:
        return "within the noise floor"
    low, high = difference.ci_low, difference.ci_high
    if low is not None and high is not None and low <= 0 <= high:
        return "no difference shown"
    if difference.delta == 0:
        return "the same"
    if difference.pairing == "to-reference" and difference.baseline_value is None:
        return "differs"  # a distance is never below zero: that it isn't zero is no judgement yet
    if difference.higher_is_better is None:
        return "changed"
    return "better" if (difference.delta > 0) == difference.higher_is_better else "worse"


def headline(run: Run) -> list[tuple[str, str]]:
    """(suite, metric) of the few figures that stand for the run: gated ones, else each suite's first."""
    preferred = {"latency": ("*throughput*", "*ttft*", "size/*", "memory/host-peak*")}
    gated = {(r.suite, r.metric) for r in (run.verdict.rules if run.verdict else []) if r.group is None}
    chosen: list[tuple[str, str]] = []
    for suite in unique(c.result.suite for c in ordered(run.cells)):
        kind = next(c.result.kind for c in run.cells if c.result.suite == suite)
        names = unique(d.metric for d in differences(run, suite))
        picks = [name for name in names if (suite, name) in gated]
        for pattern in preferred.get(kind, ()):
            picks += [name for name in names if fnmatch(name, pattern)][:1]
        chosen += [(suite, name) for name in unique(picks or names[:1])]
    return chosen
