"""WikiText-2 raw: its lines as the data set gives them, and its articles as lm-eval's data set cuts them."""

from __future__ import annotations

import os
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

from awqbench.errors import UserError, first_line
from awqbench.sources.hub import hub_refusal


def wikitext2_lines(split: str) -> list[str]:
    """The data set's lines, each with its end, blank ones empty: from AWQBENCH_DATA, else from the hub.

    Raises UserError where it is in neither.
    """
    folder = os.environ.get("AWQBENCH_DATA")
    file = Path(folder) / "wikitext-2" / f"wiki.{split}.raw" if folder else None
    if file is not None and file.is_file():
        with file.open(encoding="utf-8") as lines:
            return [line if line.strip() else "" for line in lines]
    refusal = hub_refusal()
    if refusal:
        raise UserError(
            f"WikiText-2 raw {split} is neither in AWQBENCH_DATA ({folder or 'unset'}) nor, as {refusal}, on the hub"
        )
    return _from_hub({"valid": "validation"}.get(split, split))


@cache
def _from_hub(split: str) -> list[str]:
    from datasets import load_dataset

    try:
        return list(load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split=split)["text"])
    except Exception as error:  # of the network or of the hub
        raise UserError(f"cannot get WikiText-2 raw {split} from the hub: {first_line(error)}") from None


def wikitext_articles(source: str) -> list[str]:
    """The articles of `wikitext2-raw-test`, `wikitext2-raw-valid`, or a WikiText file. Raises UserError for others."""
    name = re.fullmatch(r"wikitext2-raw-(test|valid)", source)
    if name:
        return articles(wikitext2_lines(name[1]))
    try:
        with Path(source).expanduser().open(encoding="utf-8") as lines:
            found = list(lines)
    except (OSError, UnicodeDecodeError):
        allowed = "wikitext2-raw-test, wikitext2-raw-valid, or a file with WikiText's lines"
        raise UserError(f"{source} is no WikiText (allowed: {allowed})") from None
    if not any(_is_title(line) for line in found):
        raise UserError(f"{source} has no line ' = Title = ', so it is no WikiText; use protocol = 'documents'")
    return articles(found)


def articles(lines: list[str]) -> list[str]:
    """The articles of a WikiText file as EleutherAI/wikitext_document_level cuts it, white space and all.

    A line that reads " = Title = ", and no deeper heading, begins an article; two formulas of the test split look like
    one and do so too, which makes its 60 articles the 62 that lm-eval scores.
    """
    bare = [line.removesuffix("\n") or " " for line in lines]
    starts = [at for at, line in enumerate(bare) if _is_title(line)]
    bounds = [*dict.fromkeys([0, *starts]), len(bare)]
    pages = ["\n".join(bare[low:high]) for low, high in pairwise(bounds)]
    return [page for page in [*pages[:-1], pages[-1] + "\n"] if page.strip()]


def _is_title(line: str) -> bool:
    joined = line.replace("= = =", "===").replace("= =", "==").strip()
    return joined.startswith("= ") and joined.endswith(" =")
