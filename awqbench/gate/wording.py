"""The reason of a rule's verdict as one plain sentence."""

from __future__ import annotations

from awqbench.gate.trial import Trial
from awqbench.record.schema import RuleResult, VerdictName

_UNJUDGED = ": not judged: "


def unjudged(rule: RuleResult) -> bool:
    """Whether nothing could be tested, whatever the policy counts that as: a group that is too small, a single cluster.
    A single figure has no bounds either, but is judged: it is open where it was not confirmed, or lies within noise.
    """
    return rule.upper is None and _UNJUDGED in rule.reason


def reason(trial: Trial, verdict: VerdictName, needed: int | None, family: int, p_holm: float | None) -> str:
    """What was seen, how sure that is, what the limit is; for an open question also what would decide it."""
    gate, scale = trial.gate, trial.scale
    limit = f"limit {'±' if gate.sided == 'two' else ''}{scale.text(gate.margin)}"
    if gate.zero_tolerance:
        limit += " and no loss shown" if _directed(trial) else " and no change shown"
    if trial.unjudged:
        return f"{_subject(trial)}{_UNJUDGED}{trial.unjudged}"
    seen = f"{_subject(trial)} {_loss(trial)}"
    if trial.point:
        return f"{seen}, {limit} (a single figure without items, compared as it is)"
    assert trial.decision is not None
    assert trial.shown_bounds is not None
    low, high = (_bound(trial, bound) for bound in trial.shown_bounds)
    level = f"{100 * (1 - gate.alpha):.3g} %"
    if verdict == "inconclusive" or gate.sided == "two":
        wide = f"{100 * (1 - 2 * gate.alpha):.3g} %"
        sure = f"between {low} and {high} with {wide} confidence"
    else:
        sure = f"{level} bound {low if verdict == 'fail' else high}"
    sentence = f"{seen} ({sure}), {limit}"
    if verdict != "inconclusive":
        return sentence
    if trial.decision.p_worse < gate.alpha and p_holm is not None:
        shown = "shown" if gate.zero_tolerance else "beyond it"
        sentence = f"{sentence}: {shown} taken alone, but not among {family} rules (Holm p {p_holm:.2g})"
        return sentence + _plan(trial, needed)
    return f"{sentence}: undecided{_plan(trial, needed)}"


def _plan(trial: Trial, needed: int | None) -> str:
    if needed is None:
        return f" at {trial.n} items, and no realistic number would decide it"
    if not trial.few:
        return f"; {trial.n} items measured, about {needed} would decide it"
    clusters = f" in {trial.clusters} clusters" if trial.clusters != trial.n else ""
    return f"; {trial.n} items{clusters} measured, at least {needed} are needed"


def _subject(trial: Trial) -> str:
    return f"{trial.metric.id} for {trial.attribute} = {trial.group}" if trial.group else trial.metric.id


def _directed(trial: Trial) -> bool:
    return trial.metric.higher_is_better is not None or trial.metric.pairing == "to-reference"


def _bound(trial: Trial, loss: float) -> str:
    """A bound of the loss; a gain is put in words, for a minus sign is easily read as a loss."""
    if loss >= 0 or not _directed(trial):
        return trial.scale.text(loss)
    return f"{trial.scale.text(-loss)} {'less' if trial.group else 'better'}"


def _loss(trial: Trial) -> str:
    loss = trial.scale.shown(trial.estimate)
    size = trial.scale.text(abs(loss))
    directed = _directed(trial)
    if trial.group:
        if not directed:
            return f"changed by {trial.scale.text(loss)} against the other groups"
        return f"lost {size} {'more' if loss >= 0 else 'less'} than for the other groups"
    if trial.metric.pairing == "to-reference" and trial.scale.base is None:
        return f"is {trial.scale.text(loss)}"
    if not directed:
        return f"changed by {trial.scale.text(loss)} against {trial.baseline}"
    if loss == 0:
        return f"is the same as for {trial.baseline}"
    return f"is {size} {'worse' if loss > 0 else 'better'} than for {trial.baseline}"
