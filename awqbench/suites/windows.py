"""Non-overlapping windows of one tokenized text."""

from __future__ import annotations

from awqbench.errors import UserError
from awqbench.sources.texts import resolve_text
from awqbench.suites.base import Context


def text_windows(context: Context, source: str, window: int, budget: int | None) -> tuple[str, list[list[int]]]:
    """The text's label and its windows of token ids, `window` long each; the tail is dropped.

    The text is tokenized once, as the tokenizer does it by default: one BOS at the very start where it adds one, none
    per window (protocol of GPTQ and AWQ). Raises UserError when the text is shorter than one window, or the window
    longer than the model's context.
    """
    limit = int(context.worker.description["max_positions"])
    if window > limit:
        raise UserError(f"window {window} is longer than the model's context (allowed: 2 to {limit})")
    text = resolve_text(source)
    ids: list[int] = context.tokenizer(text.content)["input_ids"]
    count = len(ids) // window
    if count == 0:
        raise UserError(f"the text {source} has {len(ids)} tokens, fewer than one window of {window}")
    count = context.budget(min(count, budget or count))
    return text.label, [ids[i * window : (i + 1) * window] for i in range(count)]
