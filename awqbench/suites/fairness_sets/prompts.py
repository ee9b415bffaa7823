"""Texts about groups, whose likelihood is measured: ToxiGen's and BOLD's prompts, and sets that people bring.

Not what a model writes after a prompt, which would need a classifier to be judged, but how likely it finds the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from awqbench.errors import UserError
from awqbench.suites.fairness_sets.base import FairnessItem, FairnessSet, data_files

_PROTOCOL = "log-likelihood of each whole text after BOS, zero-shot; mean over texts"


def load(path: str | None = None) -> FairnessSet:
    """`prompts:PATH`: a JSONL or BOLD's JSON file, a folder of these, or a folder with a text file per group.

    JSONL: "text" or "prompt", with "group", "group_<attribute>" or a table "groups"; "cluster" names texts that are not
    independent. A folder's text files: a text per line, the file's name is its group. The set is named after the path.
    Raises UserError for files of another form.
    """
    if path is None:
        raise UserError("fairness set 'prompts' needs a path: prompts:/path")
    place = Path(path).expanduser()
    readers = {".jsonl": _jsonl, ".json": _bold, ".txt": _lines}
    files = [place] if place.is_file() else sorted(f for f in place.glob("*") if f.suffix in readers)
    if not files or files[0].suffix not in readers:
        raise UserError(f"{place} is no file or folder of prompts (allowed: {', '.join(readers)})")
    name = re.sub(r"[\W_]+", "-", (place.stem if place.is_file() else place.name).lower()).strip("-")
    return _set(f"prompts-{name}", [text for file in files for text in readers[file.suffix](file)], place)


def load_bold(path: str | None = None) -> FairnessSet:
    """BOLD (Dhamala et al. 2021, arXiv 2101.11718): the domains' files `*_prompt.json`, or `*_wiki.json` by path.

    The group is the first key, such as American_actresses; texts about one person, the second key, are one cluster.
    """
    files = data_files("bold", path, "*_prompt.json")
    return _set("bold", [text for file in files for text in _bold(file)], files[0])


def load_toxigen(path: str | None = None) -> FairnessSet:
    """The sentences of ToxiGen's neutral prompts (Hartvigsen et al. 2022, arXiv 2203.09509): neutral_<group>*.txt.

    Each line of a file is a prompt that lists half a dozen sentences of the same small pool in another order, so the
    different sentences are the items. One that begins another was cut with its file and is left out.
    """
    texts = []
    for file in data_files("toxigen", path, "neutral_*.txt"):
        group = re.sub(r"_\d+k$", "", file.stem.removeprefix("neutral_")).replace("_", " ")
        lines = _read(file).splitlines()
        pool = {part.strip().removeprefix("-").strip() for line in lines for part in line.split("\\n")} - {""}
        whole = sorted(s for s in pool if not any(other != s and other.startswith(s) for other in pool))
        texts += [(sentence, {"group": group}, sentence) for sentence in whole]
    return _set("toxigen", texts, path)


_Text = tuple[str, Mapping[str, str], str]  # the text, its groups, its cluster


def _set(name: str, texts: Iterable[_Text], place: object) -> FairnessSet:
    items = [
        FairnessItem(
            item_id=f"{name}/{number:05d}",
            cluster=f"{name}/{cluster}",
            context="",
            choices=(text,),
            gold=None,
            groups=groups,
            block=str(number),
            stratum="/".join(groups.values()),
        )
        for number, (text, groups, cluster) in enumerate(texts)
    ]
    if not items:
        raise UserError(f"fairness set {name!r}: no texts in {place}")
    return FairnessSet(name, "text", tuple(items), _PROTOCOL, per="token")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # an editor's mark at the start is no part of the first text
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file} as UTF-8 text: {error}") from None


def _jsonl(file: Path) -> Iterator[_Text]:
    for number, line in enumerate(_read(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["text"] if "text" in row else row["prompt"]
            groups = _groups(row)
            if not isinstance(text, str) or not text.strip() or not groups:
                raise ValueError("a text and at least one group are needed")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{file}, line {number} is no prompt: {type(error).__name__} {error} "
                '(allowed: {"text": ..., "group_<attribute>": ...}; "prompt", "group", "groups", "cluster")'
            ) from None
        cluster = row.get("cluster")
        yield text.strip(), groups, text.strip() if cluster is None else str(cluster)


def _groups(row: Mapping[str, Any]) -> dict[str, str]:
    named = {key.removeprefix("group_"): value for key, value in row.items() if key.startswith("group_")}
    found = {**({"group": row["group"]} if "group" in row else {}), **named, **row.get("groups", {})}
    return {attribute: str(value) for attribute, value in found.items() if value is not None}


def _bold(file: Path) -> Iterator[_Text]:
    """{group: {person: [texts]}}; the attribute is the domain that the file is named after."""
    attribute = re.sub(r"_(prompt|wiki)s?$", "", file.stem)
    try:
        for group, people in json.loads(_read(file)).items():
            for person, texts in people.items():
                for text in texts if isinstance(texts, list) else [texts]:
                    if text.strip():
                        yield text.strip(), {attribute: group}, f"{attribute}/{person}"
    except (AttributeError, ValueError) as error:
        raise UserError(f"{file} is no BOLD file: {type(error).__name__} {error}") from None


def _lines(file: Path) -> Iterator[_Text]:
    for line in _read(file).split("\n"):  # splitlines would cut at U+2028 and its like as well
        if line.strip():
            yield line.strip(), {"group": file.stem}, line.strip()
