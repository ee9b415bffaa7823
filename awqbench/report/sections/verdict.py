"""The answer at the top: one card per candidate, then the figures that stand for the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from awqbench.record.reader import Run
from awqbench.record.schema import Difference, RuleResult, Verdict
from awqbench.report import select

Answer = Literal["pass", "fail", "inconclusive", "invalid", "none"]

_SENTENCES: dict[Answer, str] = {
    "pass": "may ship",
    "fail": "may NOT ship",
    "inconclusive": "cannot be decided yet",
    "invalid": "cannot be judged: a measurement failed",
    "none": "was not judged",
}


@dataclass(frozen=True)
class Card:
    """The verdict on one candidate, with the reasons that decide it; `why` there is none."""

    candidate: str
    answer: Answer
    reasons: list[str]
    counts: dict[str, int] = field(default_factory=dict)
    declared_first: bool = True
    several: bool = False
    why: str = ""

    @property
    def sentence(self) -> str:
        """The answer in words."""
        words = f"{_SENTENCES[self.answer]}: {self.why}" if self.why else _SENTENCES[self.answer]
        return words.replace("was not", "were not", 1) if self.several else words


def cards(run: Run, most: int = 3) -> list[Card]:
    """One card per candidate, `most` reasons each, the gravest first; one for all that were not judged."""
    made = [_card(run, name, most) for name in select.candidates(run)]
    unjudged = [card.candidate for card in made if card.answer == "none"]
    judged = [card for card in made if card.answer != "none"]
    if not unjudged:
        return judged
    return [*judged, Card(", ".join(unjudged), "none", [], several=len(unjudged) > 1, why=_why_unjudged(run))]


def _why_unjudged(run: Run) -> str:
    m = run.manifest
    if m.finished is None:
        return "the run is unfinished"
    # Such as a pattern that fits no metric.
    failed = run.verdict is None and (m.gates or m.spec.get("gates") or m.spec.get("policy"))
    return "its limits could not be applied, and awqbench gate says why" if failed else "no limits were declared"


def _card(run: Run, name: str, most: int) -> Card:
    rules = select.rules_of(run, name)
    reasons: list[str] = []
    counts = {word: sum(select.outcome(rule) == word for rule in rules) for word in select.OUTCOMES}
    given = run.verdict.candidates.get(name) if run.verdict else None
    answer: Answer = given or "none"
    broken = _about(run.verdict.invalid if run.verdict else [], name)
    if run.verdict and answer == "inconclusive":
        broken += _shared(run.verdict)
    if broken and answer != "fail":
        answer, reasons = "invalid", broken
    elif answer in ("fail", "inconclusive"):
        reasons = [sentence(rule) for rule in rules if select.outcome(rule) == answer]
        reasons += _about(run.verdict.unjudged if run.verdict else [], name) if answer == "inconclusive" else []
        reasons = reasons or [sentence(rule) for rule in rules if select.outcome(rule) == "not judged"]
    elif answer == "pass":
        closest = _closest(rules, run)
        reasons = [f"closest to its limit: {sentence(closest)}"] if closest else []
    if len(reasons) > most:
        reasons = [*reasons[:most], f"and {len(reasons) - most} more, listed below"]
    m = run.manifest
    judged_by = run.verdict.policy_hash if run.verdict else m.policy_hash
    return Card(name, answer, reasons, counts, declared_first=judged_by == (m.declared_policy_hash or m.policy_hash))


def sentence(rule: RuleResult) -> str:
    """A rule's reason, led by the group it is about where the reason doesn't name it."""
    if rule.group is None or rule.group in rule.reason:
        return rule.reason
    return f"{rule.attribute} = {rule.group}: {rule.reason}"


def _closest(rules: list[RuleResult], run: Run) -> RuleResult | None:
    gates = run.manifest.gates or run.manifest.spec.get("gates") or []
    both = {gate.get("name") or gate["metric"] for gate in gates if gate.get("sided") == "two"}

    def reach(rule: RuleResult) -> float:
        ends = [rule.upper or 0.0, -(rule.lower or 0.0)] if rule.rule in both else [rule.upper or 0.0]
        return max(ends) / rule.margin

    return max((r for r in rules if r.upper is not None and r.margin > 0), key=reach, default=None)


def _about(lines: list[str], candidate: str) -> list[str]:
    """The lines of a verdict that are about one candidate: those that begin with its name."""
    return [line.removeprefix(f"{candidate}/") for line in lines if line.startswith(f"{candidate}/")]


def _shared(verdict: Verdict) -> list[str]:
    """The invalid measurements that are no candidate's: the reference's, and its reruns'."""
    return [line for line in verdict.invalid if not line.startswith(tuple(f"{name}/" for name in verdict.candidates))]


@dataclass(frozen=True)
class GlanceRow:
    """One headline metric: the reference's value and what each other backend changes."""

    suite: str
    kind: str
    metric: str
    unit: str
    reference: float | None
    differences: dict[str, Difference]


def glance(run: Run) -> tuple[list[str], list[GlanceRow]]:
    """The backends beside the reference, and the headline rows."""
    rows = []
    names: list[str] = []
    kinds = {c.result.suite: c.result.kind for c in run.cells}
    for suite, metric in select.headline(run):
        found = {d.candidate: d for d in select.differences(run, suite) if d.metric == metric}
        names += found
        first = next(iter(found.values()))
        rows.append(GlanceRow(suite, kinds[suite], metric, first.unit, first.baseline_value, found))
    order = list(select.roles(run))
    return sorted(select.unique(names), key=lambda n: order.index(n) if n in order else len(order)), rows
