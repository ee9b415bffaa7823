"""Item sets for the fairness suite, by name: `counterfactual` is the project's own, all others read their files."""

from __future__ import annotations

from dataclasses import astuple

from awqbench.errors import UserError, unknown_choice
from awqbench.record.files import content_key
from awqbench.suites.fairness_sets import (
    bbq,
    counterfactual,
    crows_pairs,
    prompts,
    stereoset,
    winobias,
    winogender,
)
from awqbench.suites.fairness_sets.base import FairnessItem, FairnessSet, choose

__all__ = ["FairnessItem", "FairnessSet", "choose", "load_set", "set_hash"]

_LOADERS = {
    "bbq": bbq.load,
    "bold": prompts.load_bold,
    "counterfactual": counterfactual.load,
    "counterfactual-all": counterfactual.load_all,
    "crows-pairs": crows_pairs.load,
    "prompts": prompts.load,
    "stereoset-intersentence": stereoset.load_intersentence,
    "stereoset-intrasentence": stereoset.load_intrasentence,
    "toxigen": prompts.load_toxigen,
    "winobias": winobias.load,
    "winogender": winogender.load,
    "winogender-questions": winogender.load_questions,
}


def load_set(name: str) -> FairnessSet:
    """Load `name` or `name:path`. Raises UserError for an unknown set and for files that are missing or malformed."""
    kind, _, path = name.partition(":")
    if kind not in _LOADERS:
        raise unknown_choice("fairness set", kind, _LOADERS)
    loaded = _LOADERS[kind](path or None)
    if len({item.item_id for item in loaded.items}) != len(loaded.items):
        raise UserError(f"fairness set {name!r} holds an item twice: are two copies of a file in its folder?")
    return loaded


def set_hash(name: str) -> str:
    """sha256 over all that a set asks: its items as loaded, so that a changed file or template changes it."""
    loaded = load_set(name)
    return content_key([loaded.name, loaded.protocol, [astuple(item) for item in loaded.items]])
