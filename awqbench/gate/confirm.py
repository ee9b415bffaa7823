"""Only what fails twice is a failure: the second measurement's say.

A run with alpha = 5 % that changes nothing fails one time in twenty; judged daily, once or twice a month. On items that
the first measurement did not use, the chance that it fails twice is alpha * alpha. A real loss must be found twice too:
with power 0.8 each time, 0.64. On the same items a deterministic engine gives the same answer again: then only the
engine's determinism is confirmed, and the verdict says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from awqbench.compare.cell import Cell
from awqbench.gate.collect import collect
from awqbench.gate.results import mapped, results
from awqbench.gate.trial import Trial
from awqbench.record.schema import Confirmation, RuleResult

_DRAW = re.compile(r"(\+\d+(?:of\d+)*)~\d+")


def shown_failures(trials: Sequence[Trial], rules: Sequence[RuleResult]) -> list[int]:
    """Places of the rules that fail by what was measured, not by how the policy counts an open question."""
    return [
        place
        for place, (trial, rule) in enumerate(zip(trials, rules, strict=True))
        if rule.verdict == "fail" and trial.verdict(rule.p_holm) == "fail"
    ]


def confirmed(
    trials: Sequence[Trial], rules: Sequence[RuleResult], again: Sequence[Cell], reference: str, seed: int
) -> list[RuleResult]:
    """The rules with what the second measurement says of those that fail; that becomes undecided which it doesn't bear.

    Holm corrects over the failed rules alone. A failure that could not be measured again stands.
    """
    failed = shown_failures(trials, rules)
    cells = [first_draw(cell) for cell in again]
    there = {(cell.result.backend, cell.result.suite) for cell in cells}
    wanted = [trials[i] for i in failed if (trials[i].cell.result.backend, trials[i].cell.result.suite) in there]
    gates = {id(trial.gate): trial.gate for trial in wanted}
    asked = [
        gate.model_copy(
            update={"optional": True, "candidates": sorted({t.cell.result.backend for t in wanted if t.gate is gate})}
        )
        for gate in gates.values()
    ]
    names = {_identity(trial) for trial in wanted}
    second = [trial for trial in collect(asked, cells, reference, seed=seed).trials if _identity(trial) in names]
    verdicts = {_identity(t): (t, r) for t, r in zip(second, results(second, set()), strict=True)}
    done = list(rules)
    for place in failed:
        done[place] = _told(trials[place], rules[place], verdicts.get(_identity(trials[place])))
    return done


def first_draw(cell: Cell) -> Cell:
    """The cell with its metrics named as the first draw names them: the rules and the first run know no other."""
    metrics = [m.model_copy(update={"id": _DRAW.sub(r"\1", m.id)}) for m in cell.result.metrics]
    items = cell.items
    if len(items):
        items = items.assign(metric=items["metric"].str.replace(_DRAW, r"\1", regex=True))
    return Cell(cell.result.model_copy(update={"metrics": metrics}), items)


def _identity(trial: Trial) -> tuple[object, ...]:
    result, gate = trial.cell.result, trial.gate.model_copy(update={"optional": True, "candidates": None})
    metric = _DRAW.sub(r"\1", trial.metric.id)
    return gate.model_dump_json(), result.suite, result.backend, metric, trial.attribute, trial.group


def _told(trial: Trial, rule: RuleResult, second: tuple[Trial, RuleResult] | None) -> RuleResult:
    if second is None or (second[0].decision is None and not second[0].point):
        sentence = f"{rule.reason}; it could not be judged on a second measurement, so the failure stands"
        return rule.model_copy(update={"reason": sentence, "confirmation": Confirmation(outcome="unmeasured")})
    other, found = second
    fails = other.verdict(found.p_holm) == "fail"
    fresh = _fresh(trial, other)
    confirmation = Confirmation(
        outcome="confirmed" if fails else "not confirmed",
        fresh=fresh,
        **found.model_dump(include={"estimate", "lower", "upper", "n", "p_worse", "p_holm"}),
    )
    sentence = f"{rule.reason}; {_sentence(other, found, fails, fresh)}"
    update = {"confirmation": confirmation, "reason": sentence}
    if fails:
        return rule.model_copy(update=update)
    return mapped(rule.model_copy(update=update | {"verdict": "inconclusive"}), trial)


def _fresh(first: Trial, second: Trial) -> int | None:
    """Items of the second measurement that the first did not use; timings are all new."""
    if second.metric.pairing == "none":
        return None
    if second.metric.pairing == "ratio-of-medians":
        return second.n
    before = first.cell.rows(first.metric.id)["item_id"]
    return int((~second.cell.rows(second.metric.id)["item_id"].isin(before)).sum())


def _sentence(trial: Trial, rule: RuleResult, fails: bool, fresh: int | None) -> str:
    loss = trial.scale.text(rule.estimate or 0.0)
    p = "" if rule.p_holm is None else f", Holm p {rule.p_holm:.2g}"
    total = len(trial.cell.rows(trial.metric.id))
    if fresh is None:
        on = "measured again"
    elif fresh == 0:
        on = f"measured again on the same {trial.n} items, for there are no others: that the engine gives the same "
        on += "answer twice says nothing new of the loss"
    elif fresh < total:
        on = f"measured again on {total} items, {fresh} of them new"
    else:
        on = f"measured again on {trial.n} new items"
    return f"{on}: {'confirmed' if fails else 'not confirmed'} (loss {loss}{p})"
