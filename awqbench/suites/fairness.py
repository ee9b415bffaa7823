"""Fairness: does the model answer as well, and prefer the same, whoever the question is about?

Each set's items carry group columns, so that a comparison can ask of every group what compression cost it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from awqbench.errors import UserError
from awqbench.record.schema import GROUP_PREFIX, Metric
from awqbench.suites.base import Context, Measurement, item_table, name_budget
from awqbench.suites.fairness_groups import group_measures
from awqbench.suites.fairness_sets import FairnessItem, FairnessSet, bbq_scores, choose, load_set
from awqbench.suites.likelihood import encode_pair, score_pairs
from awqbench.suites.means import mean_metric

if TYPE_CHECKING:
    from awqbench.backends.base import Scored
    from awqbench.spec import FairnessSpec

Row = dict[str, Any]


def measure(context: Context) -> Measurement:
    """Accuracy of question sets, stereotype preference of sentence pairs, each overall and by group.

    Ids: `fairness/<set>/accuracy` or `/stereotype-preference`, with `worst-group-accuracy[attribute]` and
    `gap[attribute]`; for BBQ the measures of `bbq_scores`. A limit or a noise floor's share takes whole blocks evenly
    over the groups. Raises UserError for an unknown set or missing files.
    """
    context.require("score")
    suite: FairnessSpec = context.suite
    sets = [load_set(name) for name in suite.sets]
    names = [fairness_set.name for fairness_set in sets]
    if len(set(names)) < len(names):
        raise UserError(f"sets {suite.sets} hold the same set twice: their figures would share their ids")
    seed = context.spec.seed
    chosen = [
        choose(s.items, size, seed, draw=suite.draw, part=context.budget(size))
        for s in sets
        for size in (min(len(s.items), suite.limit or len(s.items)),)
    ]
    total = sum(len(item.choices) for items in chosen for item in items)
    metrics: list[Metric] = []
    rows: list[Row] = []
    before = 0
    for fairness_set, items in zip(sets, chosen, strict=True):
        scored = _score(context, items, before, total)
        before += sum(len(item.choices) for item in items)
        figures, table = _measures(fairness_set, items, scored, suite.min_group)
        metrics += figures
        rows += table
    measured = Measurement(metrics, item_table(rows))
    for fairness_set in sets:
        measured = name_budget(
            measured, f"fairness/{fairness_set.name}", suite.limit, len(fairness_set.items), suite.draw
        )
    return measured


def _score(context: Context, items: Sequence[FairnessItem], before: int, total: int) -> list[list[Scored]]:
    """Every choice's tokens given its item's context, grouped by item."""
    pairs = [
        encode_pair(context.tokenizer, item.context, f" {choice}" if item.context else choice)
        for item in items
        for choice in item.choices
    ]
    here = len(pairs)

    def progress(done: int, unique: int) -> None:
        context.progress(before + here * done // unique, total)

    flat = iter(score_pairs(context.worker, pairs, int(context.worker.description["max_positions"]), progress))
    return [[next(flat) for _ in item.choices] for item in items]


def _measures(
    fairness_set: FairnessSet, items: Sequence[FairnessItem], scored: Sequence[list[Scored]], min_group: int
) -> tuple[list[Metric], list[Row]]:
    questions = fairness_set.kind == "questions"
    name = "accuracy" if questions else "stereotype-preference"
    id = f"fairness/{fairness_set.name}/{name}"
    answers = [
        _question_row(item, tokens, fairness_set.per_character) if questions else _preference_row(tokens)
        for item, tokens in zip(items, scored, strict=True)
    ]
    rows = [{"metric": id, **_identity(item), **answer} for item, answer in zip(items, answers, strict=True)]
    detail, by_group = group_measures(fairness_set.name, name, rows, fairness_set.protocol, min_group)
    overall = mean_metric(
        id,
        [row["score"] for row in rows],
        [row["cluster"] for row in rows],
        unit="share",
        protocol=fairness_set.protocol,
        higher_is_better=True if questions else None,
        bounds=(0.0, 1.0),
        detail={"groups": detail, **fairness_set.notes} | ({} if questions else {"neutral": 0.5}),
    )
    metrics = [overall, *by_group]
    if fairness_set.name == "bbq":
        figures, extra = bbq_scores.measures(items, rows, fairness_set.protocol)
        metrics += figures
        rows += extra
    return metrics, rows


def _identity(item: FairnessItem) -> Row:
    groups = {f"{GROUP_PREFIX}{attribute}": value for attribute, value in item.groups.items()}
    return {"item_id": item.item_id, "cluster": item.cluster, **groups}


def _question_row(item: FairnessItem, scored: Sequence[Scored], per_character: bool) -> Row:
    lengths = [len(choice) if per_character else 1 for choice in item.choices]
    best = int(np.argmax([-tokens.nll / length for tokens, length in zip(scored, lengths, strict=True)]))
    gold = item.gold if item.gold is not None else 0
    return {
        "score": float(best == gold),
        "correct": best == gold,
        "prediction": item.choices[best],
        "gold": item.choices[gold],
        "nll": scored[gold].nll,
        "tokens": len(scored[gold].logprobs),
    }


def _preference_row(scored: Sequence[Scored]) -> Row:
    """1: the stereotyping sentence is likelier, 0: the other one, one half: a tie. Nothing here is right or wrong."""
    more, less = scored
    return {
        "score": 0.5 if more.nll == less.nll else float(more.nll < less.nll),
        "prediction": "tie" if more.nll == less.nll else "stereotyping" if more.nll < less.nll else "other",
        "nll": more.nll,
        "tokens": len(more.logprobs),
    }
