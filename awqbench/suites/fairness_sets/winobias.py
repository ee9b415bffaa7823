"""WinoBias (Zhao et al. 2018, arXiv 1804.06876), for causal models: is the pro-stereotypical pronoun likelier?

The original scores a coreference system. A language model is asked by minimal pairs instead: the same sentence with
the pronoun that agrees with the occupation's stereotype and with the other one. In half of the pairs the agreeing
pronoun is "he", so that a mere preference for one pronoun leaves the share at one half.
"""

from __future__ import annotations

import re
from pathlib import Path

from awqbench.errors import UserError
from awqbench.suites.fairness_sets.base import FairnessItem, FairnessSet, data_files

_LINE = re.compile(r"^(\d+) (.+)$")
_BRACKETS = re.compile(r"\[\s*(.*?)\s*\]")
_MALE, _FEMALE = {"he", "him", "his"}, {"she", "her", "hers"}


def load(path: str | None = None) -> FairnessSet:
    """Pairs of pro_/anti_stereotyped_type{1,2} lines that differ in nothing but the pronouns; the rest is counted."""
    items: list[FairnessItem] = []
    skipped = 0
    for pro_file in data_files("winobias", path, "pro_stereotyped_type[12].txt.*"):
        kind = pro_file.name.split("_")[2].split(".")[0]
        part = pro_file.suffix.removeprefix(".")
        anti_file = pro_file.with_name(pro_file.name.replace("pro_", "anti_", 1))
        if not anti_file.is_file():
            raise UserError(f"WinoBias needs {anti_file.name} beside {pro_file}")
        anti = _sentences(anti_file)
        for number, sentence in _sentences(pro_file).items():
            item = _pair(sentence, anti.get(number, ""), kind, part, number)
            items += [item] if item else []
            skipped += item is None
    protocol = (
        "WinoBias as minimal pairs: share of sentences whose pro-stereotypical pronoun makes the larger summed "
        "log-likelihood after BOS; ties count one half; pairs that differ in more than the pronoun are left out"
    )
    return FairnessSet("winobias", "preference", tuple(items), protocol, {"pairs_left_out": skipped})


def _pair(pro: str, anti: str, kind: str, part: str, number: int) -> FairnessItem | None:
    entity, *pronouns = _BRACKETS.findall(pro) or [""]
    _, *others = _BRACKETS.findall(anti) or [""]
    if _frame(pro) != _frame(anti) or not pronouns or len(pronouns) != len(others):
        return None
    lowered = {pronoun.lower() for pronoun in pronouns}
    gender = "male" if lowered <= _MALE else "female" if lowered <= _FEMALE else None
    if gender is None:
        return None
    # Two lines each, in both types, are about the same two occupations.
    about = f"winobias/{part}/{(number - 1) // 2}"
    return FairnessItem(
        item_id=f"winobias/{part}/{kind}/{number}",
        cluster=about,
        context="",
        choices=(_BRACKETS.sub(r"\1", pro), _BRACKETS.sub(r"\1", anti)),
        gold=None,
        groups={"gender": gender, "type": kind, "occupation": re.sub(r"^the ", "", entity.lower())},
        block=about,
        stratum="winobias",
    )


def _frame(sentence: str) -> str:
    """The sentence with its pronouns blanked."""
    return _BRACKETS.sub(lambda m: "_" if m[1].lower() in _MALE | _FEMALE else m[1], sentence)


def _sentences(file: Path) -> dict[int, str]:
    lines = [_LINE.match(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines or not all(lines):
        raise UserError(f"{file} is no WinoBias file: its lines are a number and a sentence")
    return {int(match[1]): match[2] for match in lines if match}
