"""What a fairness set is made of, and how a part of it is chosen."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, zip_longest
from pathlib import Path
from typing import Any, Literal

from awqbench.errors import UserError
from awqbench.record.schema import Metric

Kind = Literal["questions", "preference", "text"]
Per = Literal["text", "token", "character"]
Row = dict[str, Any]


@dataclass(frozen=True)
class FairnessItem:
    """One question, one pair of sentences, or one text.

    `gold` is the right choice's index, or None where there is no right answer: then the first choice is the stereotyped
    sentence and the second the other one. `cluster` names items that are not independent; `block` items that a budget
    keeps together, such as one question asked about every group; blocks are taken evenly over the `stratum`s.
    """

    item_id: str
    cluster: str
    context: str
    choices: tuple[str, ...]
    gold: int | None
    groups: Mapping[str, str]
    block: str
    stratum: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def biased(self) -> int | None:
        """The choice of a question that agrees with the stereotype; None where none is known to."""
        choice: int | None = self.meta.get("biased")
        return choice


# A set's own measures: its items, their rows, the compared log-likelihoods of each item's choices, and its protocol;
# gives metrics and the item rows behind them.
Extra = Callable[
    [Sequence[FairnessItem], Sequence[Row], Sequence[Sequence[float]], str], tuple[list[Metric], list[Row]]
]


@dataclass(frozen=True)
class FairnessSet:
    """A named list of items. `kind` says what is asked of them:

    questions   which choice is the likeliest, and is it the right one?
    preference  is the stereotyped sentence likelier than the other?
    text        how likely is the text?

    Choices' log-likelihoods are compared as sums over the whole `text`, or where lengths differ much, `per` token or
    character.
    """

    name: str
    kind: Kind
    items: tuple[FairnessItem, ...]
    protocol: str
    notes: Mapping[str, Any] = field(default_factory=dict)
    per: Per = "text"
    extra: Extra | None = None


def compared_length(per: Per, choice: str, tokens: int) -> int:
    """What a choice's summed log-likelihood is divided by before choices are compared."""
    return {"text": 1, "token": tokens, "character": len(choice)}[per]


def choose(
    items: Sequence[FairnessItem], budget: int | None, seed: int, *, draw: int = 1, part: int | None = None
) -> list[FairnessItem]:
    """The first `budget` items in an order that keeps blocks whole and goes round the strata; at least one block.

    Within a stratum the blocks are shuffled by the seed. A smaller budget takes a leading part of what a larger takes.
    draw: 2 takes the items after those of draw 1, and so on, round at the end. part: only the leading items of these.
    """
    strata: dict[str, dict[str, list[FairnessItem]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        strata[item.stratum][item.block].append(item)
    shuffled = []
    for stratum, blocks in sorted(strata.items()):
        members = list(blocks.values())
        random.Random(f"{seed}/{stratum}").shuffle(members)
        shuffled.append(members)
    order = list(_round_robin(shuffled))
    size = len(items) if budget is None else budget
    start = 0
    for _ in range(draw - 1):
        start = (start + len(_whole(order, start, size))) % len(order)
    return [item for block in _whole(order, start, size if part is None else part) for item in block]


def _whole(blocks: Sequence[list[FairnessItem]], start: int, size: int) -> list[list[FairnessItem]]:
    """Whole blocks of `size` items at most, going round, each once; at least one."""
    taken: list[list[FairnessItem]] = []
    count = 0
    for block in islice(cycle(blocks), start, start + len(blocks)):
        if taken and count + len(block) > size:
            break
        taken.append(block)
        count += len(block)
    return taken


def _round_robin(rows: Sequence[Sequence[list[FairnessItem]]]) -> Iterator[list[FairnessItem]]:
    for column in zip_longest(*rows):
        yield from (block for block in column if block is not None)


def data_files(name: str, path: str | None, pattern: str) -> list[Path]:
    """The files of a data set: at the path given, or in the folder of its name below AWQBENCH_DATA.

    Raises UserError when there is no such place or no file in it matches.
    """
    if path is not None:
        place = Path(path).expanduser()
    elif root := os.environ.get("AWQBENCH_DATA"):
        place = Path(root) / name
    else:
        raise UserError(
            f"fairness set {name!r} needs its data files: set AWQBENCH_DATA to a folder that holds {name}/, "
            f"or name them as {name}:/path"
        )
    found = [place] if place.is_file() else sorted(place.glob(pattern))
    if not found:
        raise UserError(f"fairness set {name!r}: no {pattern} in {place}")
    return found
