"""The gate from end to end: cells of identical models, of losses that sit on every margin, and of planted harms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from designs import Floats, alone, equal, flips
from rates import Rate

from awqbench.compare.cell import Cell
from awqbench.gate import judge, policy_hash
from awqbench.record.schema import CellResult, Comparison, Metric, RuleResult, Verdict
from awqbench.spec import GateSpec
from awqbench.stats import mde

TEMPLATES, PEOPLE, ITEMS, WINDOWS = 60, 10, 400, 30
SHARE = {"unit": "share", "higher_is_better": True, "pairing": "difference"}
PPL = {"unit": "perplexity", "higher_is_better": False, "pairing": "log-ratio"}
KL = {"unit": "nats per token", "higher_is_better": False, "pairing": "to-reference"}
_ASKED = equal(TEMPLATES, PEOPLE)
_PERSON = np.arange(_ASKED.n) % PEOPLE
_GROUPS = {
    "cluster": [f"template {code}" for code in _ASKED.codes],
    "group_gender": np.where(_PERSON % 2 == 0, "a", "b"),
    "group_region": np.array(list("stuvw"))[_PERSON // 2],
}
_EMPTY = Comparison(reference="reference", noise_floor=None)


def policy(tasks: float, groups: float, kl: float, perplexity: float) -> list[GateSpec]:
    """Rules like those of the default preset, with these margins."""
    return [
        GateSpec(metric="perplexity/*", margin=perplexity, unit="relative"),
        GateSpec(metric="divergence/*/kl", margin=kl),
        GateSpec(metric="tasks/*", margin=tasks),
        GateSpec(metric="fairness/*", margin=groups, attribute="*"),
    ]


DEFAULT, STRICT = policy(0.03, 0.2, 0.1, 0.05), policy(0.0, 0.0, 0.1, 0.0)


def study_gate(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """False alarms of a family of rules, on identical models and with every loss on its margin.

    Half as many runs: a verdict takes a twentieth of a second.
    """
    runs //= 2
    kinds = {"identical models, margins of the default preset": (DEFAULT, 0.0, 0.0, 0.02, 0.0)}
    kinds["identical models, margins of 0"] = (STRICT, 0.0, 0.0, 0.02, 0.0)
    kinds["every loss on its margin"] = (policy(0.03, 0.05, 0.1, 0.05), 0.03, 0.05, 0.1, math.log1p(0.05))
    for name, (gates, *losses) in kinds.items():
        verdicts = [_judged(gates, _cells(rng, *losses)).overall for _ in range(runs)]
        yield Rate("gate", name, "fail", verdicts.count("fail"), runs, 0.05)
        if losses[0]:
            yield Rate("gate", name, "pass at the margins", verdicts.count("pass"), runs, 0.05)
        else:
            yield Rate("gate", name, "pass", verdicts.count("pass"), runs, 1.0, "about")


def study_planted(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Planted losses found by the gate as often as planned. A fifth of the runs."""
    yield from _harmed_group(rng, runs // 5)
    yield from _items_needed(rng, runs // 5)


def _harmed_group(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """One gender loses more than the margin by the smallest effect that Holm's strictest step can show."""
    gates = policy(0.03, 0.05, 0.1, 0.05)
    family = 3 + 2 + 5
    spread = math.sqrt(0.06 * 4 / _ASKED.n)
    excess = mde(1, sd=spread, alpha=0.05 / family, sided="one", df=TEMPLATES - 1)
    spread = math.sqrt((0.06 + 0.05 + excess) * 4 / _ASKED.n)  # the harm itself flips items too
    harm = 0.05 + mde(1, sd=spread, alpha=0.05 / family, sided="one", df=TEMPLATES - 1)
    named = passed = 0
    for _ in range(runs):
        verdict = _judged(gates, _cells(rng, 0.0, harm, 0.02, 0.0))
        failed = {(rule.attribute, rule.group) for rule in verdict.rules if rule.verdict == "fail"}
        named += ("gender", "a") in failed
        passed += bool(failed - {("gender", "a")})
    name = f"one gender of two loses {100 * harm:.1f} points more, margin 5"
    yield Rate("gate, planted losses", name, "the group is named", named, runs, 0.8, "at least")
    yield Rate("gate, planted losses", name, "another rule fails", passed, runs, 0.05)


def _items_needed(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """An undecided rule asks for more items: with as many, and the rates it saw, it is decided."""
    for lost, won, n, aim in ((18, 4, 200, "fail"), (4, 3, 200, "pass")):
        seen = np.zeros(n)
        seen[:lost], seen[lost : lost + won] = 1, -1
        first = _rule(_judged(DEFAULT, _cells(rng, 0.0, 0.0, 0.02, 0.0, seen)))
        assert first.verdict == "inconclusive"
        assert first.n_needed is not None
        rows = flips(rng, alone(first.n_needed), runs, lost / n, won / n)
        found = sum(_rule(_judged(DEFAULT, _cells(rng, 0.0, 0.0, 0.02, 0.0, row))).verdict == aim for row in rows)
        name = f"{lost} of {n} lost, {won} won, margin 3 points, among 10 rules: {first.n_needed} items to {aim}"
        yield Rate("gate, planted losses", name, "decided as planned", found, runs, 0.8, "at least")


def _rule(verdict: Verdict) -> RuleResult:
    return next(rule for rule in verdict.rules if rule.metric.startswith("tasks/"))


def _judged(gates: Sequence[GateSpec], cells: Sequence[Cell]) -> Verdict:
    return judge(gates, cells, _EMPTY, "reference", policy_hash=policy_hash(gates))


def _cells(
    rng: np.random.Generator, tasks: float, harm: float, kl: float, worse: float, answers: Floats | None = None
) -> list[Cell]:
    """Both backends on four suites. tasks: loss of accuracy; harm: what one gender loses beyond the other; kl: its
    mean; worse: of the log-perplexity; answers: losses of the task's items in the place of drawn ones."""
    if answers is None:
        answers = flips(rng, alone(ITEMS), 1, 0.02 + tasks, 0.02)[0]
    asked = flips(rng, _ASKED, 1, 0.03, 0.03, 0.3)[0]
    asked = np.where((_PERSON % 2 == 0) & (rng.random(asked.size) < harm), 1.0, asked)
    before = rng.normal(3, 0.3, WINDOWS)
    return [
        *_pair("tasks/a", _right(rng, answers), answers, SHARE),
        *_pair("fairness/s/accuracy", _right(rng, asked), asked, SHARE, **_GROUPS),
        *_pair("perplexity/t@512", before, rng.normal(-worse, 0.02, WINDOWS), PPL),
        _cell("awq", "divergence/t@256/kl", rng.gamma(4, kl / 4, WINDOWS), KL),
    ]


def _right(rng: np.random.Generator, losses: Floats) -> Floats:
    """Right or wrong before, so that what is lost was right and what is won was wrong."""
    return np.where(losses == 0, rng.random(losses.size) < 0.7, losses > 0).astype(np.float64)


def _pair(metric: str, before: Floats, losses: Floats, kind: dict[str, Any], **columns: Any) -> list[Cell]:
    """The reference's cell and the candidate's."""
    scores = {"reference": before, "awq": before - losses}
    return [_cell(backend, metric, values, kind, **columns) for backend, values in scores.items()]


def _cell(backend: str, metric: str, scores: Floats, kind: dict[str, Any], **columns: Any) -> Cell:
    names = [f"i{i}" for i in range(scores.size)]
    items = pd.DataFrame({"metric": metric, "item_id": names, "score": scores, **{"cluster": names, **columns}})
    result = CellResult(
        backend=backend, suite=metric.split("/")[0], kind="tasks", key="k", status="ok",
        role="reference" if backend == "reference" else "candidate",
        metrics=[Metric(id=metric, value=float(scores.mean()), n=scores.size, protocol="p", **kind)],
    )  # fmt: skip
    return Cell(result, items)
