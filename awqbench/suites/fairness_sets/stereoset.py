"""StereoSet (Nadeem et al. 2021, arXiv 2004.09456), for causal models: dev.json or test.json, two sets in one file.

Each item has a stereotyped, an anti-stereotyped and an unrelated choice. intrasentence: three words in one sentence;
intersentence: three sentences after one context.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from awqbench.errors import UserError
from awqbench.suites.fairness_sets import stereoset_scores
from awqbench.suites.fairness_sets.base import FairnessItem, FairnessSet, data_files

Part = Literal["intrasentence", "intersentence"]
_LABELS = ("stereotype", "anti-stereotype", "unrelated")
_ASKED = {
    "intrasentence": "of the whole sentence after BOS",
    "intersentence": "of the second sentence given the first",
}


def load_intrasentence(path: str | None = None) -> FairnessSet:
    """One sentence with three words in its place."""
    return _load("intrasentence", path)


def load_intersentence(path: str | None = None) -> FairnessSet:
    """Three sentences after one context.

    The original gives GPT-2 a next-sentence head, trained for this; a causal model is asked by its likelihood instead.
    """
    return _load("intersentence", path)


def _load(part: Part, path: str | None) -> FairnessSet:
    (file, *_) = data_files("stereoset", path, "*.json")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["data"][part]
        items = tuple(_item(row, part) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is no StereoSet file: {type(error).__name__} {error}") from error
    if not items:
        raise UserError(f"{file} holds no {part} items")
    protocol = (
        f"StereoSet {part} for causal models: mean log-likelihood per token {_ASKED[part]}; "
        "share of items whose stereotyped choice has the larger one than the anti-stereotyped; ties count one half"
    )
    measures = stereoset_scores.measures_of(f"stereoset-{part}")
    return FairnessSet(f"stereoset-{part}", "preference", items, protocol, per="token", extra=measures)


def _item(row: dict[str, Any], part: Part) -> FairnessItem:
    said = {sentence["gold_label"]: sentence["sentence"].strip() for sentence in row["sentences"]}
    if set(said) != set(_LABELS) or len(row["sentences"]) != len(_LABELS):
        raise ValueError(f"item {row['id']} has the labels {sorted(said)}, not one of each of {list(_LABELS)}")
    context = row["context"].strip()
    if context[-1:] not in {".", "!", "?"}:
        context += "."  # as the original does: the second sentence is a new one
    return FairnessItem(
        item_id=f"stereoset-{part}/{row['id']}",
        cluster=f"stereoset/{row['bias_type']}/{row['target'].lower()}",  # the target term
        context=context if part == "intersentence" else "",
        choices=tuple(said[label] for label in _LABELS),
        gold=None,
        groups={"bias_type": row["bias_type"]},
        block=row["id"],
        stratum=row["bias_type"],
    )
