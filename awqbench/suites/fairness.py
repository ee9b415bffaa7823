"""Fairness: does the model answer as well, and prefer the same, whoever the question is about?

Each set's items carry group columns, so that a comparison can ask of every group what compression cost it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from awqbench.errors import UserError
from awqbench.record.schema import Metric
from awqbench.suites.base import Context, Measurement, item_table, name_budget
from awqbench.suites.fairness_measures import set_measures
from awqbench.suites.fairness_sets import FairnessItem, FairnessSet, choose, load_set
from awqbench.suites.fairness_sets.base import Row
from awqbench.suites.likelihood import encode_pair, room_of, score_pairs
from awqbench.suites.slices import intersect, parts_of

if TYPE_CHECKING:
    from awqbench.backends.base import Scored
    from awqbench.spec import FairnessSpec


def measure(context: Context) -> Measurement:
    """Accuracy of question sets, stereotype preference of sentence pairs, likelihood of texts, each also by group.

    Ids: `fairness/<set>/accuracy`, `/stereotype-preference`, or `/perplexity` and `/nats-per-byte`, with
    `worst-group-accuracy[attribute]` and `gap[attribute]`; and each set's own measures. A limit or a noise floor's
    share takes whole blocks evenly over the groups. Raises UserError for an unknown set or missing files.
    """
    context.require("score")
    suite: FairnessSpec = context.suite
    sets = crossed([load_set(name) for name in suite.sets], suite.intersections)
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
        figures, table = set_measures(fairness_set, items, scored, suite.min_group)
        metrics += figures
        rows += table
    measured = Measurement(metrics, item_table(rows))
    for fairness_set in sets:
        measured = name_budget(
            measured, f"fairness/{fairness_set.name}", suite.limit, len(fairness_set.items), suite.draw
        )
    return measured


def crossed(sets: Sequence[FairnessSet], intersections: Sequence[str]) -> list[FairnessSet]:
    """The sets with intersections among their groups, each in the sets that have all of its attributes.

    Raises UserError for one that fits no set.
    """
    attributes = [{attribute for item in s.items for attribute in item.groups} for s in sets]
    fits = {name: set(parts_of(name)) for name in intersections}
    for name, parts in fits.items():
        if not any(parts <= there for there in attributes):
            allowed = "; ".join(
                f"{s.name}: {', '.join(sorted(there))}" for s, there in zip(sets, attributes, strict=True)
            )
            raise UserError(f"intersection {name!r} fits none of the sets (their attributes: {allowed})")
    found = []
    for fairness_set, there in zip(sets, attributes, strict=True):
        own = [name for name, parts in fits.items() if parts <= there]
        groups = intersect([item.groups for item in fairness_set.items], own)
        items = tuple(replace(item, groups=group) for item, group in zip(fairness_set.items, groups, strict=True))
        found.append(replace(fairness_set, items=items))
    return found


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

    room = room_of(context.worker, context.asked_whole)
    flat = iter(score_pairs(context.worker, pairs, room, progress, context.asked_whole))
    return [[next(flat) for _ in item.choices] for item in items]
