"""Non-overlapping windows of one tokenized text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from awqbench.errors import UserError
from awqbench.sources.texts import resolve_text, split_slice
from awqbench.spec import OF_DOCUMENTS
from awqbench.stats.batches import batches
from awqbench.suites.base import Context, budget_suffix
from awqbench.suites.likelihood import encode

# Tokens of a text after which its windows no longer hang together (docs/quality.md has the measurement).
APART = 8192


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of token ids, their places in the text, what it is called, how many it has, which draw this is, whether
    they are from all along the text, and the ids of the whole text."""

    label: str
    ids: list[list[int]]
    places: Sequence[int]
    available: int
    draw: int
    spread: bool
    text: list[int]

    def protocol(self, window: int, budget: int | None, first: int | None = None) -> str:
        """`text@window` for all windows, `+8` after it for the first eight of more, `+8of173` for eight from all along,
        `+6of8of173` for the `first` six of these: two protocols, two names."""
        suffix = budget_suffix(budget, self.available, self.draw, self.spread)
        if first is not None and first < min(budget or self.available, self.available):
            within = suffix.replace("+", "of") if self.spread else ""
            suffix = f"+{first}{within}" if within else budget_suffix(first, self.available, self.draw)
        return f"{self.label}@{window}{suffix}"


def text_windows(context: Context, source: str, window: int, budget: int | None) -> Windows:
    """The windows of a text that a spec names; see `windows_of`. Raises UserError for a JSONL file, as its braces and
    field names are no text."""
    if split_slice(source)[0].endswith(".jsonl"):
        raise UserError(
            f"{source} holds documents, not one text (allowed: a packaged text or a text file; of perplexity the "
            f"protocols {', '.join(OF_DOCUMENTS)} read JSONL)"
        )
    text = resolve_text(source)
    return windows_of(context, text.label, text.content, window, budget)


def windows_of(
    context: Context, label: str, content: str, window: int, budget: int | None, most: int | None = None
) -> Windows:
    """The windows of a text, `window` tokens each, of which the first `most` make the whole; the tail is dropped.

    The text is tokenized once, as the tokenizer does it by default: one BOS at the very start where it adds one, none
    per window (protocol of GPTQ and AWQ). Raises UserError when the text is shorter than one window, or the window
    longer than the model's context.
    """
    check_window(context, window)
    ids = encode(context.tokenizer, content)
    available = min(len(ids) // window, most or len(ids))
    if available == 0:
        raise UserError(f"the text {label} has {len(ids)} tokens, fewer than one window of {window}")
    places = context.chosen(available, budget)
    cut = [ids[i * window : (i + 1) * window] for i in places]
    return Windows(label, cut, places, available, context.draw, context.spread, ids)


def neighbours(places: Sequence[int], window: int) -> list[str]:
    """Each window's cluster where windows that are near each other are alike: the name of its batch, in order.

    `window`: tokens of one. Windows with `APART` tokens between them are a cluster each.
    """
    far = all((after - before - 1) * window >= APART for before, after in pairwise(places))
    codes = range(len(places)) if far else batches(len(places)).tolist()
    ends: dict[int, list[int]] = {}
    for code, place in zip(codes, places, strict=True):
        ends.setdefault(code, []).append(place)
    return [f"windows-{ends[code][0]:05d}-{ends[code][-1]:05d}" for code in codes]


def check_window(context: Context, window: int) -> None:
    """Raise UserError for a window that the model cannot hold."""
    limit = int(context.worker.description["max_positions"])
    if window > limit:
        raise UserError(f"window {window} is longer than the model's context (allowed: 2 to {limit})")
