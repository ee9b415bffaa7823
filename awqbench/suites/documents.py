"""Plain texts of a document source, and what the record says of the tokenizer that splits them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from awqbench.errors import UserError
from awqbench.sources.documents import HUB_DOCUMENTS, resolve_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def plain_documents(source: str, text_field: str | None = None) -> tuple[str, list[str], list[str]]:
    """What a source is called, its documents without white space at their ends, and a note where it has more of them.

    Raises UserError for conversations, which have no text of their own, and as `resolve_documents` does.
    """
    found = resolve_documents(source, text_field)
    texts = [item.rstrip() for item in found.items if isinstance(item, str)]
    if len(texts) < len(found.items):
        raise UserError(f"{source} holds conversations (allowed: texts, or text_field naming a field that holds one)")
    notes = [f"the first {HUB_DOCUMENTS} rows of {source} were read, and it has more"] if found.more else []
    return found.label, [text for text in texts if text], notes


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of what splits a text: the whole of a fast tokenizer, or the vocabulary of a slow one; first 16 digits."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(state.encode()).hexdigest()[:16]
