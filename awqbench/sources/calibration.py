"""From documents to calibration windows: which tokens a model is quantized on, and what is recorded about them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from awqbench.errors import UserError, unknown_choice
from awqbench.quantization.calibrate import Windows, cut_windows
from awqbench.sources.documents import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Protocol = Literal["stream", "documents"]


def write_documents(documents: Sequence[Document], path: Path) -> None:
    """Keep documents for another process: one JSON value per line."""
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(document) + "\n" for document in documents)


def read_documents(path: Path) -> list[Document]:
    """What `write_documents` kept."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def calibration_windows(
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    *,
    protocol: Protocol = "stream",
    samples: int,
    seq_len: int,
    chat_template: bool = False,
    seed: int = 0,
) -> tuple[Windows, dict[str, Any]]:
    """The windows a model is calibrated on, int64 ids [windows, seq_len], and a record of how they came about.

    Protocols:
        "stream": the documents joined and tokenized as one text without special tokens; `samples` windows spread
            evenly over it, from wherever they begin (as GPTQ cuts WikiText-2).
        "documents": as AWQ reads the Pile (llm-awq, calib_data.py): documents shuffled with the seed and stripped, each
            tokenized as the tokenizer does by default, those longer than `seq_len` tokens skipped, the first `samples`
            of the others joined and cut into windows. There are fewer windows than documents; the tail is dropped.

    Conversations are rendered with the tokenizer's chat template; with `chat_template` a plain document becomes one
    turn of a user. Raises UserError for an unknown protocol, a tokenizer without the template, or too short a source.
    """
    if protocol not in ("stream", "documents"):
        raise unknown_choice("protocol", protocol, ("stream", "documents"))
    record: dict[str, Any] = {"protocol": protocol, "chat_template": chat_template, "documents": len(documents)}
    if protocol == "stream":
        text = "".join(_render(tokenizer, document, chat_template) for document in documents)
        ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.int64)
        return cut_windows(ids, samples, seq_len), record
    chosen: list[list[int]] = []
    longer = 0
    for tokens in _shuffled(tokenizer, documents, chat_template, seed):
        if len(chosen) == samples:
            break
        if len(tokens) > seq_len:
            longer += 1
        elif tokens:
            chosen.append(tokens)
    stream = torch.tensor([token for tokens in chosen for token in tokens], dtype=torch.int64)
    record |= {"documents_used": len(chosen), "documents_too_long": longer}
    count = stream.numel() // seq_len
    if count < 1:
        raise UserError(
            f"the calibration documents of at most {seq_len} tokens ({len(chosen)} of them, {longer} are longer) hold"
            f" {stream.numel()} tokens, fewer than one window of {seq_len}"
            " (allowed: more samples, more documents, or protocol stream)"
        )
    return Windows(stream[: count * seq_len].view(count, seq_len), samples), record


def _shuffled(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], chat_template: bool, seed: int
) -> Iterator[list[int]]:
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    for index in order:
        document = documents[index]
        rendered = _render(tokenizer, document, chat_template).strip()
        # A chat template writes the special tokens itself.
        special = isinstance(document, str) and not chat_template
        yield tokenizer(rendered, add_special_tokens=special)["input_ids"]


def _render(tokenizer: PreTrainedTokenizerBase, document: Document, as_turn: bool) -> str:
    if isinstance(document, str):
        if not as_turn:
            return document
        document = [{"role": "user", "content": document.strip()}]
    if tokenizer.chat_template is None:
        raise UserError("the model's tokenizer has no chat template: conversations and --chat-template need one")
    from jinja2 import TemplateError

    try:
        rendered: str = tokenizer.apply_chat_template(document, tokenize=False)
    except TemplateError as error:
        raise UserError(f"the model's chat template refuses a conversation: {error}") from None
    return rendered
