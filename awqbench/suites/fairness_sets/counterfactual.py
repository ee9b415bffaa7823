"""This project's own set: the same question, asked about people who differ in their group and in nothing else.

Templates and people lie in suites/fairness/*.toml; its README says how they were made and what they cannot show.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from awqbench import resources
from awqbench.errors import UserError
from awqbench.suites.fairness_sets.base import FairnessItem, FairnessSet

# Questions made from each recall template; with 80 inference rows this makes 300, 60 for each of the five families.
RECALL_FILLS = 22

_PROTOCOL = (
    "counterfactual questions, zero-shot: the continuation with the largest summed log-likelihood; "
    "within a cluster only the person's group changes"
)


@dataclass(frozen=True)
class Question:
    """A template with its content filled in and its person still open."""

    name: str
    text: str  # {Person} {ref} {Ref} are open
    choices: tuple[str, ...]
    gold: int

    @property
    def template(self) -> str:
        """The template it was made from."""
        return self.name.partition("/")[0]


def load(path: str | None = None) -> FairnessSet:
    """Expand the templates. Each question goes to one family, in turn, and is asked about all of its groups."""
    families, roles, asked = _contents(path)
    items: list[FairnessItem] = []
    for number, question in enumerate(asked):
        turn, place = divmod(number, len(families))
        items += _ask("counterfactual", question, families[place], roles[turn % len(roles)], turn)
    return FairnessSet("counterfactual", "questions", tuple(items), _PROTOCOL)


def load_all(path: str | None = None) -> FairnessSet:
    """Ask every question about all groups of all families: five times the items per group, at five times the cost.

    The families' items of one question are one cluster and one block.
    """
    families, roles, asked = _contents(path)
    items: list[FairnessItem] = []
    for turn, question in enumerate(asked):
        for family in families:
            name = f"counterfactual-all/{question.name}"
            for item in _ask("counterfactual-all", question, family, roles[turn % len(roles)], turn):
                items.append(replace(item, block=name, stratum=question.template))
    return FairnessSet("counterfactual-all", "questions", tuple(items), f"{_PROTOCOL}; every question of every family")


def _contents(path: str | None) -> tuple[list[dict[str, Any]], list[str], Iterator[Question]]:
    """Families, roles and questions."""
    folder = Path(path) if path else resources.content("suites") / "fairness"
    people = _read(folder / "people.toml")
    return people["families"], people["roles"], questions(_read(folder / "templates.toml"))


def questions(templates: dict[str, Any]) -> Iterator[Question]:
    """Every question, in a fixed order: recall templates, then inference templates."""
    for template in templates["recall"]:
        for fill in range(RECALL_FILLS):
            yield _recall(template, fill)
    for template in templates["inference"]:
        for fill, (said, *choices) in enumerate(template["rows"]):
            yield _question(template, fill, {"x": said}, choices)


def _recall(template: dict[str, Any], fill: int) -> Question:
    """Two different things and two different values; their steps differ, so that combinations do not repeat."""
    things, values = template["things"], template["values"]
    x1, x2 = (things[(fill + step * (1 + fill // len(things))) % len(things)] for step in (0, 1))
    y1, y2 = (values[(fill + step * (1 + fill // len(values))) % len(values)] for step in (0, 1))
    second = fill % 2
    words = {"x1": x1, "x2": x2, "y1": y1, "y2": y2, "x": (x1, x2)[second]}
    return _question(template, fill, words, [(y1, y2)[second], (y2, y1)[second]])


def _question(template: dict[str, Any], fill: int, words: dict[str, str], choices: list[str]) -> Question:
    """`choices` come with the right one first; it is moved through the places in turn."""
    right, *wrong = choices
    # Not fill % len: in recall templates that would tie the answer's place to which of the two things is asked about.
    gold = (fill // 2) % len(choices)
    wrong.insert(gold, right)
    kept = {"Person": "{Person}", "ref": "{ref}", "Ref": "{Ref}"}
    return Question(f"{template['name']}/{fill:02d}", template["text"].format(**words, **kept), tuple(wrong), gold)


def _ask(set_name: str, question: Question, family: dict[str, Any], role: str, turn: int) -> Iterator[FairnessItem]:
    cluster = f"{set_name}/{question.name}"
    for person in family["people"]:
        phrases = person["phrases"]
        who = phrases[turn % len(phrases)].format(role=role)
        ref = who if family.get("refer_by_name") else f"the {role}"
        groups = {attribute: value for attribute, value in person.items() if attribute != "phrases"}
        yield FairnessItem(
            item_id=f"{cluster}/{'-'.join(groups.values()).replace(' ', '_')}",
            cluster=cluster,
            context=question.text.format(Person=_sentence_start(who), ref=ref, Ref=_sentence_start(ref)),
            choices=question.choices,
            gold=question.gold,
            groups=groups,
            block=cluster,
            stratum=family["name"],
        )


def _sentence_start(words: str) -> str:
    return words[0].upper() + words[1:]


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"fairness set 'counterfactual' needs {file}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}") from None
