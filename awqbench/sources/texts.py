"""From a text's name to its characters: a file, a data folder, an installed package, then the hub.

A name may carry a slice in percent of its characters, `name[50%:]`, cut at line ends: calibration and evaluation can
share a source without sharing a word.
"""

from __future__ import annotations

import bz2
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from awqbench.errors import BackendUnavailable, UserError, unknown_choice
from awqbench.sources.wikitext import wikitext2_lines

_SLICE = re.compile(r"^(?P<name>.*?)\[(?:(?P<low>\d+(?:\.\d+)?)%)?:(?:(?P<high>\d+(?:\.\d+)?)%)?\]$")


@dataclass(frozen=True, slots=True)
class Text:
    """A text, what to call it in a metric id, and its sha256."""

    label: str
    content: str
    sha256: str


def resolve_text(source: str) -> Text:
    """The text a spec names. Raises UserError for an unknown name, a missing or empty file, BackendUnavailable for a
    packaged text whose package is missing."""
    name, low, high = split_slice(source)
    if name in PACKAGED:
        label, content = name, PACKAGED[name]()
    elif Path(name).expanduser().is_file():
        label, content = _read_file(Path(name).expanduser())
    elif "/" in name or "." in name:
        raise UserError(f"no text file at {name} (packaged texts: {', '.join(PACKAGED)})")
    else:
        raise unknown_choice("text", name, [*PACKAGED, "a path to a UTF-8 text file"])
    if name != source:
        content = _cut(content, low, high)
        label = label + source[len(name) :]
    if not content.strip():
        raise UserError(f"the text {source} is empty")
    return Text(label, content, hashlib.sha256(content.encode()).hexdigest())


def split_slice(source: str) -> tuple[str, float, float]:
    """A source's name without its slice, and the slice in percent. Raises UserError for one that runs backwards."""
    match = _SLICE.match(source)
    if match is None:
        return source, 0.0, 100.0
    low, high = float(match["low"] or 0), float(match["high"] or 100)
    if not 0 <= low < high <= 100:
        raise UserError(f"the slice in {source!r} must run upwards within 0% and 100%")
    return match["name"], low, high


def _read_file(path: Path) -> tuple[str, str]:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} as UTF-8 text: {error}") from None
    # Two files may have one name, and a file the name of a packaged text: metric ids must differ.
    return f"{path.stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}", content


def _cut(content: str, low: float, high: float) -> str:
    def line_end(percent: float) -> int:
        position = int(len(content) * percent / 100)
        found = content.find("\n", position)
        return 0 if percent == 0 else len(content) if found < 0 or percent == 100 else found + 1

    return content[line_end(low) : line_end(high)]


def _pydoc_topics() -> str:
    """CPython's language reference, as every interpreter carries it: about 465 kB of technical English."""
    from pydoc_data import topics

    return "\n\n".join(topics.topics[key] for key in sorted(topics.topics))


@cache  # it takes seconds, where a file is read anew: it may have been edited since
def _gensim_wikipedia() -> str:
    """About a hundred Wikipedia articles from gensim's test data: 3 MB, some markup left."""
    spec = find_spec("gensim")
    if spec is None or spec.origin is None:
        raise BackendUnavailable("the text gensim-wikipedia comes with gensim: pip install gensim==4.4.0")
    files = sorted(
        (Path(spec.origin).parent / "test" / "test_data").glob("enwiki-latest-pages-articles1.xml-*-shortened.bz2")
    )
    if not files:
        raise BackendUnavailable("this gensim carries no Wikipedia articles: pip install gensim==4.4.0")
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki

    with bz2.open(files[0]) as stream:
        pages = [(title, text) for title, text, _ in extract_pages(stream, ("0",)) if not text.startswith("#REDIRECT")]
    return "\n\n".join(f"= {title} =\n\n{filter_wiki(text).strip()}" for title, text in pages) + "\n"


def _wikitext2_raw(split: str) -> str:
    """WikiText-2 raw as GPTQ and AWQ join it: the data set's lines (blank ones empty) with two newlines between."""
    return "\n\n".join(wikitext2_lines(split))


PACKAGED: dict[str, Callable[[], str]] = {
    "pydoc-topics": _pydoc_topics,
    "gensim-wikipedia": _gensim_wikipedia,
    "wikitext2-raw-test": lambda: _wikitext2_raw("test"),
    "wikitext2-raw-valid": lambda: _wikitext2_raw("valid"),
}
