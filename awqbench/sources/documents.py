"""From a calibration source's name to its documents: a text's paragraphs, a JSONL file's lines, a hub data set's rows.

Standard library at import: a machine that quantizes may have nothing but torch and transformers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from awqbench.errors import UserError, first_line
from awqbench.sources.hub import hub_refusal
from awqbench.sources.texts import Text, resolve_text, split_slice

Message = dict[str, str]
Document = str | list[Message]

HUB = "hub:"
HUB_FORM = "hub:OWNER/NAME[:CONFIG][:SPLIT]"
# Calibration wants hundreds of documents; a whole web crawl must not be downloaded for them.
HUB_DOCUMENTS = 2048
FIELDS = ("text", "messages", "conversations")
_HUB_NAME = re.compile(r"^hub:(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))??(?::(?P<split>[\w.-]+))?$")
# What conversations in the ShareGPT form call the speakers.
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant"}


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents in their source's order, what to call the source, the sha256 of what was read, and whether the source
    has more: of a hub data set the first `HUB_DOCUMENTS` rows are read.

    A document is a text, with what separates it from the next at its end, or a conversation: a list of messages with
    "role" and "content".
    """

    label: str
    items: tuple[Document, ...]
    sha256: str
    more: bool = False


def resolve_documents(source: str, text_field: str | None = None) -> Documents:
    """The documents of a packaged text, a UTF-8 text file (paragraphs, cut at blank lines), a JSONL file (one document
    per line) or `hub:OWNER/NAME[:CONFIG][:SPLIT]`, each with a slice in percent if wanted: `my.jsonl[:50%]`.

    `text_field` names the field that holds a record's text or messages; by default the first of `FIELDS` there is.
    Raises UserError for a source that is missing or malformed, or a hub data set where there is no hub.
    """
    if source.startswith(HUB):
        return _from_hub(source, text_field)
    return _from_text(source, text_field, resolve_text(source))


@lru_cache(maxsize=4)
def _from_text(source: str, text_field: str | None, text: Text) -> Documents:
    if not split_slice(source)[0].endswith(".jsonl"):
        if text_field is not None:
            raise UserError(f"{source} is plain text and has no field {text_field!r} (allowed with JSONL and hub data)")
        return Documents(text.label, tuple(paragraphs(text.content)), text.sha256)
    records = (
        (f"line {number} of {source}", _parse(line, f"line {number} of {source}"))
        for number, line in enumerate(text.content.split("\n"), 1)
        if line.strip()
    )
    return Documents(text.label, _documents(records, text_field, source), text.sha256)


def paragraphs(content: str) -> list[str]:
    """A text's paragraphs, or its lines where no line is blank, with what separates them: joined they are the text."""
    blank = r"(\n\s*\n)"
    pieces = re.split(blank if re.search(blank, content.strip()) else r"(\n)", content)
    joined = (text + gap for text, gap in zip(pieces[::2], [*pieces[1::2], ""], strict=True))
    return [paragraph for paragraph in joined if paragraph]


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{where} holds no object (allowed: one object per line)")
    return record


def _documents(
    records: Iterable[tuple[str, dict[str, Any]]], text_field: str | None, source: str
) -> tuple[Document, ...]:
    found = (_document(record, text_field, where) for where, record in records)
    kept = tuple(document for document in found if document)
    if not kept:
        raise UserError(f"{source} holds no document that is not empty")
    return kept


def _document(record: dict[str, Any], text_field: str | None, where: str) -> Document:
    names = (text_field,) if text_field else FIELDS
    field = next((name for name in names if name in record), None)
    if field is None:
        raise UserError(f"{where} has no field {' or '.join(map(repr, names))} (it has: {', '.join(sorted(record))})")
    value = record[field]
    if isinstance(value, str):
        return value.rstrip() + "\n\n" if value.strip() else ""
    if isinstance(value, list):
        return [_message(message, f"{field!r} in {where}") for message in value]
    raise UserError(f"{field!r} in {where} is neither a text nor a list of messages")


def _message(message: Any, where: str) -> Message:
    if isinstance(message, dict):
        speaker = message.get("role") or message.get("from")
        content = message["content"] if "content" in message else message.get("value")
        if isinstance(content, list) and all(isinstance(part, dict) for part in content):
            content = "".join(str(part.get("text", "")) for part in content)
        if isinstance(speaker, str) and isinstance(content, str):
            return {"role": _ROLES.get(speaker, speaker), "content": content}
    raise UserError(f"a message of {where} has no role and content (allowed: role and content, or from and value)")


@lru_cache(maxsize=4)
def _from_hub(source: str, text_field: str | None) -> Documents:
    name, low, high = split_slice(source)
    match = _HUB_NAME.match(name)
    if match is None:
        raise UserError(f"{name!r} names no hub data set (allowed: {HUB_FORM})")
    if refusal := hub_refusal():
        raise UserError(f"cannot get {name} from the hub: {refusal} (allowed now: a text or JSONL file)")
    records = hub_rows(match["repo"], match["config"], match["split"] or "train")
    more = len(records) > HUB_DOCUMENTS
    records = records[:HUB_DOCUMENTS]
    first, last = (int(len(records) * percent / 100) for percent in (low, high))
    items = _documents(records[first:last], text_field, source)
    digest = hashlib.sha256(json.dumps(items, ensure_ascii=False).encode()).hexdigest()
    return Documents(source.removeprefix(HUB), items, digest, more)


def hub_rows(repo: str, config: str | None, split: str) -> list[tuple[str, dict[str, Any]]]:
    """The first rows of a data set, one more than are used, each with what to call it in a message.

    Raises UserError for what is not there.
    """
    from datasets import load_dataset

    try:
        rows = islice(load_dataset(repo, config, split=split, streaming=True), HUB_DOCUMENTS + 1)
        return [(f"row {number} of {repo}", dict(row)) for number, row in enumerate(rows, 1)]
    except Exception as error:  # of the network, of the hub, or of the data set: a script, say, is a RuntimeError
        raise UserError(f"cannot get {repo} from the hub: {first_line(error)}") from None
