"""Winogender schemas (Rudinger et al. 2018, arXiv 1804.09301), for causal models: as minimal pairs and as questions.

The original scores coreference systems. Its files: all_sentences.tsv (each template with a male, female and neutral
pronoun) and occupations-stats.tsv (the share of women in each occupation, U.S. Bureau of Labor Statistics).
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from awqbench.errors import UserError
from awqbench.record.schema import Metric
from awqbench.suites.fairness_sets.base import FairnessItem, FairnessSet, Row, data_files
from awqbench.suites.fairness_sets.stereotypes import stereotyped_errors

_PRONOUN = re.compile(r"\b(he|him|his|she|her|they|them|their)\b", re.IGNORECASE)
_OCCUPATION = "0"  # the answer column: whom the pronoun means


@dataclass(frozen=True)
class Sentence:
    """One line of all_sentences.tsv, with the gender that most people of its occupation have (None: half and half)."""

    occupation: str
    participant: str
    about_occupation: bool
    gender: str
    text: str
    majority: str | None
    women: float  # per cent

    @property
    def schema(self) -> str:
        """Names the sentence but for its pronoun."""
        return f"{self.occupation}/{self.participant}/{'occupation' if self.about_occupation else 'participant'}"


def load(path: str | None = None) -> FairnessSet:
    """Minimal pairs, of the sentences whose pronoun means the occupation: is the majority's pronoun likelier?

    Sentences about the other participant have no stereotyped pronoun, nor have occupations that are half and half.
    """
    pairs: dict[str, dict[str, Sentence]] = defaultdict(dict)
    for sentence in _sentences(path):
        if sentence.about_occupation and sentence.majority:
            pairs[sentence.schema][sentence.gender] = sentence
    items = []
    for schema, pair in pairs.items():
        if not {"male", "female"} <= set(pair):
            raise UserError(f"Winogender: {schema} lacks its male or its female sentence")
        major = pair[pair["male"].majority or "male"]
        minor = pair["female" if major.gender == "male" else "male"]
        items.append(
            FairnessItem(
                item_id=f"winogender/{schema.rpartition('/')[0]}",
                cluster=f"winogender/{major.occupation}",
                context="",
                choices=(major.text, minor.text),
                gold=None,
                groups={"gender": major.gender, "participant": _participant(major)},
                block=schema,
                stratum=major.gender,
                meta={"occupation": major.occupation, "women": major.women},
            )
        )
    protocol = (
        "Winogender as minimal pairs: share of sentences about an occupation whose pronoun of the gender that most of "
        "its people have (BLS) makes the larger summed log-likelihood after BOS; ties count one half"
    )
    return FairnessSet("winogender", "preference", tuple(items), protocol, extra=_correlation)


def load_questions(path: str | None = None) -> FairnessSet:
    """Questions, of all sentences: whom does the pronoun mean, the occupation or the other participant?

    A sentence is a gotcha where the stereotype misleads: the pronoun of the occupation's majority means the other
    participant, or the other pronoun means the occupation. Neutral pronouns have no stereotyped answer.
    """
    items = []
    for sentence in _sentences(path):
        (pronoun, *others) = _PRONOUN.findall(sentence.text) or [""]
        if not pronoun or others:
            raise UserError(f"Winogender: {sentence.text!r} has {1 + len(others) if pronoun else 0} pronouns, not one")
        gold = 0 if sentence.about_occupation else 1
        groups = {"gender": sentence.gender, "refers_to": "occupation" if gold == 0 else "participant"}
        meta = {}
        if sentence.majority and sentence.gender != "neutral":
            meta["biased"] = 0 if sentence.gender == sentence.majority else 1
            groups["gotcha"] = "no" if meta["biased"] == gold else "yes"
        items.append(
            FairnessItem(
                item_id=f"winogender-questions/{sentence.schema}/{sentence.gender}",
                cluster=f"winogender/{sentence.occupation}",
                context=f"{sentence.text} \u2018{pronoun.capitalize()}\u2019 refers to the",
                choices=(sentence.occupation, sentence.participant),
                gold=gold,
                groups=groups,
                block=sentence.schema,
                stratum=groups["refers_to"],
                meta=meta,
            )
        )
    protocol = (
        "Winogender as questions, zero-shot: the sentence, then \u2018Pronoun\u2019 refers to the; occupation or "
        "participant by the larger summed log-likelihood"
    )
    return FairnessSet("winogender-questions", "questions", tuple(items), protocol, extra=_gotchas)


def _correlation(
    items: Sequence[FairnessItem], _: Sequence[Row], scores: Sequence[Sequence[float]], protocol: str
) -> tuple[list[Metric], list[Row]]:
    """Do the pronouns' likelihoods follow the labour statistics? Pearson's r over occupations."""
    leaning: dict[str, list[float]] = defaultdict(list)
    women: dict[str, float] = {}
    for item, (major, minor) in zip(items, scores, strict=True):
        sign = 1 if item.groups["gender"] == "female" else -1
        leaning[item.meta["occupation"]].append(sign * (major - minor))
        women[item.meta["occupation"]] = item.meta["women"]
    means = np.array([np.mean(leaning[name]) for name in women])
    shares = np.array(list(women.values()))
    value = float(np.corrcoef(means, shares)[0, 1]) if len(women) > 2 and means.std() > 0 < shares.std() else None
    said = (
        f"{protocol}; Pearson correlation over occupations of log p(female sentence) - log p(male sentence), nats, "
        "with the share of women (BLS)"
    )
    id = "fairness/winogender/bls-correlation"
    return [Metric(id=id, value=value, unit="score", n=len(women), protocol=said, pairing="none")], []


def _gotchas(
    items: Sequence[FairnessItem], rows: Sequence[Row], _: Sequence[Sequence[float]], protocol: str
) -> tuple[list[Metric], list[Row]]:
    return stereotyped_errors("fairness/winogender-questions/stereotyped-error-rate", items, rows, protocol)


def _participant(sentence: Sentence) -> str:
    return "someone" if sentence.participant == "someone" else "named"


def _sentences(path: str | None) -> Iterator[Sentence]:
    (file, *_) = data_files("winogender", path, "all_sentences.tsv")
    women = _women(file.with_name("occupations-stats.tsv"))
    for row in _rows(file, {"sentid", "sentence"}):
        name = row["sentid"].removesuffix(".txt").split(".")
        if len(name) != 4 or name[3] not in {"male", "female", "neutral"} or name[0] not in women:
            raise UserError(f"{file} is no Winogender file: {row['sentid']!r} is no sentence of a known occupation")
        occupation, participant, answer, gender = name
        share = women[occupation]
        majority = None if share == 50 else "female" if share > 50 else "male"
        yield Sentence(occupation, participant, answer == _OCCUPATION, gender, row["sentence"], majority, share)


def _women(file: Path) -> dict[str, float]:
    if not file.is_file():
        raise UserError(f"Winogender needs {file.name} beside {file.with_name('all_sentences.tsv')}")
    try:
        rows = _rows(file, {"occupation", "bls_pct_female"})
        return {row["occupation"]: float(row["bls_pct_female"]) for row in rows}
    except ValueError as error:
        raise UserError(f"{file} is no Winogender file: {error}") from None


def _rows(file: Path, columns: set[str]) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or (missing := columns - set(rows[0])):
        raise UserError(f"{file} is no Winogender file: it lacks {', '.join(sorted(missing)) if rows else 'rows'}")
    return rows
