"""BBQ, the bias benchmark for question answering (Parrish et al. 2022, arXiv 2110.08193)."""

from __future__ import annotations

import json
import re
from typing import Any

from awqbench.errors import UserError
from awqbench.suites.fairness_sets import bbq_scores
from awqbench.suites.fairness_sets.base import FairnessItem, FairnessSet, data_files

# Rows come in fours about the same two people: ambiguous and disambiguated, each with both polarities.
_BLOCK = 4


def load(path: str | None = None) -> FairnessSet:
    """Every *.jsonl of the folder (one per category). The gold answer is the row's label.

    `meta` holds `unknown`, the index of the "can't be determined" answer, and `biased`, the index of the answer that
    agrees with the stereotype, or None where the file does not tell which of the two people is stereotyped.
    """
    items: list[FairnessItem] = []
    for file in data_files("bbq", path, "*.jsonl"):
        try:
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
            items += [_item(row) for row in rows]
        except (KeyError, ValueError, StopIteration) as error:
            raise UserError(f"{file} is no BBQ file: {type(error).__name__} {error}") from error
    protocol = (
        "BBQ, zero-shot: context, question, then the answer with the largest log-likelihood per character; "
        "gold is the row's label"
    )
    undetermined = sum(item.meta["biased"] is None for item in items)
    notes = {"items_without_known_target": undetermined}
    return FairnessSet("bbq", "questions", tuple(items), protocol, notes, "character", bbq_scores.measures)


def _item(row: dict[str, Any]) -> FairnessItem:
    answers = [row[f"ans{place}"] for place in range(3)]
    infos = [row["answer_info"][f"ans{place}"] for place in range(3)]
    unknown = next(place for place, info in enumerate(infos) if info[1] == "unknown")
    people = [place for place in range(3) if place != unknown]
    targets = _targets({place: infos[place] for place in people}, row["additional_metadata"]["stereotyped_groups"])
    biased = None
    groups = {"category": row["category"], "condition": _CONDITIONS[row["context_condition"]]}
    if len(targets) == 1:
        (target,) = targets
        other = people[0] if target == people[1] else people[1]
        # A negative question is answered with the stereotyped person, a non-negative one with the other.
        biased = target if row["question_polarity"] == "neg" else other
        groups["stereotyped"] = str(infos[target][1])
    question = f"bbq/{row['category']}/{row['question_index']}"
    return FairnessItem(
        item_id=f"bbq/{row['category']}/{row['example_id']}",
        cluster=question,
        context=f"{row['context']}\nQuestion: {row['question']}\nAnswer:",
        choices=tuple(answers),
        gold=int(row["label"]),
        groups=groups,
        block=f"{question}/{int(row['example_id']) // _BLOCK}",
        stratum=question,
        meta={"unknown": unknown, "biased": biased, "condition": groups["condition"]},
    )


_CONDITIONS = {"ambig": "ambiguous", "disambig": "disambiguated"}


def _targets(infos: dict[int, list[str]], groups: list[str]) -> list[int]:
    """Which of the people belong to the stereotyped groups: by label, or where labels are coarser, by description."""
    names = [group.casefold() for group in groups]
    by_label = [place for place, info in infos.items() if info[1].casefold() in names]
    if by_label:
        return by_label
    words = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    return [place for place, info in infos.items() if names and words.search(info[0].casefold())]
