"""The units that damage is measured on: windows of a text, or items of a fairness set; in two halves that share none.

The first half estimates and ranks, the second confirms by putting back: a ranking is not judged on the units that
made it. Windows take turns along the text; items take turns by cluster within each stratum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from awqbench.attribution.damage import Damage, Divergence, ItemLoss, Items, Question
from awqbench.attribution.recovery import Sample
from awqbench.errors import InvalidMeasurement, UserError, unknown_choice
from awqbench.quantization.calibrate import cut_windows
from awqbench.sources.texts import resolve_text
from awqbench.stats.batches import batches
from awqbench.suites.fairness import crossed
from awqbench.suites.fairness_sets import FairnessItem, choose, load_set
from awqbench.suites.fairness_sets.base import Per
from awqbench.suites.likelihood import encode, encode_pair
from awqbench.suites.slices import AND
from awqbench.suites.windows import APART

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOSSES: Mapping[str, Sequence[ItemLoss]] = {
    "questions": ("choice", "nll"), "preference": ("preference",), "text": ("nll",)
}  # fmt: skip
LEAST = 2  # units of a half, and clusters of a group in a half, that an interval needs


@dataclass(frozen=True)
class Units:
    """A damage, the units of each half, and each unit's group of the attribute (None where none is asked for)."""

    damage: Damage
    estimating: list[int]
    confirming: list[int]
    about: dict[str, Any]
    groups: list[str] = field(default_factory=list)
    group: str | None = None

    def of(self, group: str) -> Units:
        """The same units with the group settled."""
        return replace(self, group=group, about={**self.about, "group": group})

    def sample(self, units: Sequence[int]) -> Sample:
        """Clusters and group membership of some units. Raises InvalidMeasurement for a group too small."""
        inside = [self.group is None or self.groups[unit] == self.group for unit in units]
        clusters = [self.damage.clusters[unit] for unit in units]
        if self.group is not None:
            for name, chosen in ((self.group, True), ("the others", False)):
                found = len({cluster for cluster, mine in zip(clusters, inside, strict=True) if mine == chosen})
                if found < LEAST:
                    raise InvalidMeasurement(
                        f"{name}: items in {found} clusters, too few for an interval (allowed: more --items)"
                    )
        return Sample.of(clusters, inside, self.damage.distance)

    def tokens(self, units: Sequence[int]) -> int:
        """Tokens of one forward pass over some units."""
        return sum(self.damage.tokens[unit] for unit in units)


def text_units(
    tokenizer: PreTrainedTokenizerBase, text: str, window: int, windows: int, limit: int, scratch: Path
) -> Units:
    """`windows` windows for each half, spread evenly over a text. Raises UserError for too short a text or context."""
    if not 2 <= window <= limit:
        raise UserError(f"window is {window} (allowed: 2 to {limit}, the model's context)")
    if windows < LEAST:
        raise UserError(f"windows is {windows} (allowed: {LEAST} or more, so that there is an interval)")
    found = resolve_text(text)
    ids = torch.tensor(encode(tokenizer, found.content), dtype=torch.int64)
    if len(ids) < 2 * LEAST * window:
        raise UserError(f"the text {text} has {len(ids)} tokens, fewer than {2 * LEAST} windows of {window}")
    cut = cut_windows(ids, 2 * windows, window).ids.tolist()
    halves = list(range(0, len(cut), 2)), list(range(1, len(cut), 2))
    about = {"name": "kl", "text": found.label, "sha256": found.sha256, "window": window}
    return Units(
        Divergence(cut, scratch, _clusters(halves, len(ids) // len(cut), window)),
        *halves,
        {**about, "unit": Divergence.unit},
    )


def _clusters(halves: Sequence[Sequence[int]], apart: int, window: int) -> list[str]:
    """Each window's cluster among those of its half, which begin `apart` tokens after those of the other half: KL
    hangs together over thousands of tokens, as in the divergence suite."""
    near: dict[int, str] = {}
    for half in halves:
        codes = range(len(half)) if 2 * apart - window >= APART else batches(len(half)).tolist()
        near |= {place: f"windows-{half[0]}-{code:05d}" for place, code in zip(half, codes, strict=True)}
    return [near[place] for place in sorted(near)]


def item_units(
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    items: int,
    limit: int,
    *,
    attribute: str | None = None,
    group: str | None = None,
    loss: str | None = None,
    seed: int = 0,
) -> Units:
    """About `items` items of a fairness set for each half, whole blocks, evenly over its strata.

    With an `attribute` only items that have it. Raises UserError for an unknown set, attribute, group or loss.
    """
    fairness_set = load_set(name)
    kinds = LOSSES[fairness_set.kind]
    kind = loss or kinds[0]
    if kind not in kinds:
        raise unknown_choice(f"loss of the set {fairness_set.name}", kind, kinds)
    if attribute is not None and AND in attribute:
        (fairness_set,) = crossed([fairness_set], [attribute])
    known = sorted({each for item in fairness_set.items for each in item.groups})
    if attribute is not None and attribute not in known:
        raise unknown_choice("attribute", attribute, known)
    if group is not None and attribute is None:
        raise UserError(f"group {group!r} is of no attribute (allowed: --attribute {', '.join(known)})")
    fitting = [item for item in fairness_set.items if attribute is None or attribute in item.groups]
    names = sorted({item.groups[attribute] for item in fitting}) if attribute else []
    if group is not None and group not in names:
        raise unknown_choice(f"group of {attribute}", group, names)
    chosen = choose(fitting, 2 * items, seed)
    questions = [_question(tokenizer, item, fairness_set.per, limit) for item in chosen]
    halves = _halves(chosen)
    about = {
        "name": f"{fairness_set.name}/{kind}", "unit": Items.unit, "set": name, "attribute": attribute, "group": group,
        "protocol": fairness_set.protocol, "seed": seed,
    }  # fmt: skip
    return Units(
        Items(questions, [item.cluster for item in chosen], cast(ItemLoss, kind)),
        halves[0],
        halves[1],
        about,
        [item.groups[attribute] for item in chosen] if attribute else [],
        group,
    )


def _question(tokenizer: PreTrainedTokenizerBase, item: FairnessItem, per: Per, limit: int) -> Question:
    pairs = [encode_pair(tokenizer, item.context, f" {each}" if item.context else each) for each in item.choices]
    if (longest := max(len(context) + len(choice) for context, choice in pairs)) > limit:
        raise UserError(f"{item.item_id} has {longest} tokens, more than the model's context of {limit}")
    return Question.of(item, pairs, per)


def _halves(items: Sequence[FairnessItem]) -> tuple[list[int], list[int]]:
    """Places of the items of each half: a cluster is never parted, a stratum's clusters take turns."""
    strata = {name: place for place, name in enumerate(dict.fromkeys(item.stratum for item in items))}
    side: dict[str, int] = {}
    turns: Mapping[str, list[int]] = {name: [place % 2] for name, place in strata.items()}
    halves: tuple[list[int], list[int]] = ([], [])
    for place, item in enumerate(items):
        if item.cluster not in side:
            side[item.cluster] = turns[item.stratum][0]
            turns[item.stratum][0] ^= 1
        halves[side[item.cluster]].append(place)
    if min(map(len, halves)) < LEAST:
        raise InvalidMeasurement(
            f"{len(items)} items make halves of {len(halves[0])} and {len(halves[1])}: more are needed"
        )
    return halves
