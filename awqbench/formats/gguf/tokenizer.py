"""A Hugging Face tokenizer in llama.cpp's terms: tokens, merges, special ids and the name of its pre-tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, SpecialVocab, TokenType

from awqbench.errors import UserError

# How text is split before merging, by the splitting expressions of tokenizer.json (see `split_hash`). llama.cpp
# compiles these in and knows each by a name.
_SPLITS = {
    "gpt-2": "1b399597dc8e64b5",
    "smollm": "c6eef6ba2ef7f370",
    "llama-bpe": "a6857ad6ffe42344",
    "qwen2": "3ceadb160382a85e",
}
# Merges that tell a family even where tokenizer.json has lost how it splits (one that came out of a GGUF, say).
_MERGES = {"99849e7c5cde6c31": "smollm"}
# llama.cpp refuses a file without merges. Text starts as single letters, so these two never come to stand together.
_INERT_MERGE = "<no> <merge>"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def write_tokenizer(writer: GGUFWriter, folder: Path, vocabulary: int, pre: str | None = None) -> list[str]:
    """Add the tokenizer of a checkpoint folder to the file's metadata, padded to `vocabulary` tokens.

    `pre` overrides the name of the pre-tokenizer of a byte-level BPE. Returns notes for the user. Raises UserError for
    a folder without a tokenizer, a kind of tokenizer that llama.cpp's `gpt2` and `llama` are not, or an unknown
    pre-tokenizer.
    """
    state = _read(folder)
    model = state["model"]
    tokens, kinds = _tokens(state, vocabulary)
    notes: list[str] = []
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(tokens, model["merges"]))
        writer.add_add_space_prefix(_prefixes_space(state))
    else:
        name, notes = _pre_tokenizer(state, pre)
        writer.add_token_merges([" ".join(_pair(merge)) for merge in model["merges"]] or [_INERT_MERGE])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_add_space_prefix(False)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = SpecialVocab(folder, n_vocab=vocabulary)
    special.add_special_token |= _added(state, special.special_token_ids)
    special.add_to_gguf(writer, quiet=True)
    return notes


def _read(folder: Path) -> dict[str, Any]:
    """tokenizer.json, made by transformers where the folder has the tokenizer in another form."""
    path = folder / "tokenizer.json"
    if path.is_file():
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    else:
        from transformers import AutoTokenizer

        try:
            state = json.loads(AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str())
        except (OSError, ValueError, ImportError, AttributeError) as error:
            raise UserError(f"{folder}: no tokenizer that GGUF can carry: {str(error).splitlines()[0]}") from None
    kind = state.get("model", {}).get("type")
    if kind != "BPE":
        raise UserError(f"{folder}: the tokenizer is of type {kind} (allowed for GGUF: BPE)")
    return state


def _tokens(state: Mapping[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    added = {item["id"]: item for item in state.get("added_tokens", ())}
    by_id = {index: text for text, index in state["model"]["vocab"].items()}
    by_id |= {index: item["content"] for index, item in added.items()}
    if max(by_id) >= vocabulary:
        raise UserError(f"the tokenizer has token {max(by_id)}, config.json a vocabulary of {vocabulary}")
    fallback = bool(state["model"].get("byte_fallback"))
    unknown = state["model"].get("unk_token")

    def kind(index: int) -> TokenType:
        if index not in by_id:
            return TokenType.UNUSED
        if fallback and by_id[index] == unknown:
            return TokenType.UNKNOWN
        if index in added:
            return TokenType.CONTROL if added[index].get("special") else TokenType.USER_DEFINED
        return TokenType.BYTE if fallback and _BYTE_TOKEN.fullmatch(by_id[index]) else TokenType.NORMAL

    tokens = [by_id.get(index, f"[PAD{index}]") for index in range(vocabulary)]
    return tokens, [int(kind(index)) for index in range(vocabulary)]


def _scores(tokens: Sequence[str], merges: Sequence[Any]) -> list[float]:
    """SentencePiece joins the pair whose union scores highest first: the merge that comes first in the list."""
    ranks: dict[str, float] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(_pair(merge)), -float(rank))
    return [ranks.get(token, 0.0 if _BYTE_TOKEN.fullmatch(token) else -float(len(merges))) for token in tokens]


def _pair(merge: Any) -> Sequence[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _prefixes_space(state: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text, as SentencePiece does by default."""
    steps = _steps(state.get("normalizer")) + _steps(state.get("pre_tokenizer"))
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def _steps(stage: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """A stage of tokenizer.json, flat."""
    if not stage:
        return []
    parts = stage.get("normalizers") or stage.get("pretokenizers")
    return [stage] if parts is None else [step for part in parts for step in _steps(part)]


def _pre_tokenizer(state: Mapping[str, Any], override: str | None) -> tuple[str, list[str]]:
    """llama.cpp's name for how text is split, and a note where tokenizer.json splits otherwise than its family."""
    if override:
        return override, []
    by_split = {digest: name for name, digest in _SPLITS.items()}.get(split_hash(state))
    by_merges = _MERGES.get(merges_hash(state))
    if by_merges and by_split and by_merges != by_split:
        note = (
            f"tokenizer.json splits text as {by_split} does, its merges are {by_merges}'s: the file says {by_merges}, "
            "so that numbers may be tokenized otherwise"
        )
        return by_merges, [note]
    name = by_merges or by_split
    if name is None:
        raise UserError(
            f"unknown pre-tokenizer (allowed: {', '.join(_SPLITS)}): name the one of llama.cpp that splits the same "
            "way with --pre"
        )
    return name, []


def split_hash(state: Mapping[str, Any]) -> str:
    """sha256 over what decides how a byte-level tokenizer splits text: expressions, single digits, GPT-2's own rule."""
    facts: list[Any] = []
    for step in _steps(state.get("pre_tokenizer")):
        if step["type"] == "Split":
            facts.append([step["pattern"], step["behavior"], step.get("invert", False)])
        elif step["type"] == "Digits":
            facts.append(["digits", step["individual_digits"]])
        elif step["type"] == "ByteLevel":
            facts.append(["bytes", step.get("use_regex", True), step.get("add_prefix_space", False)])
        else:
            facts.append(dict(step))
    return _hash(facts)


def merges_hash(state: Mapping[str, Any]) -> str:
    """sha256 over the merges, whichever of the two ways tokenizer.json spells them."""
    return _hash([list(_pair(merge)) for merge in state["model"]["merges"]])


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]


def _added(state: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, bool]:
    """Whether the tokenizer itself puts bos and eos around a text, found by tokenizing nothing."""
    from tokenizers import Tokenizer

    empty = Tokenizer.from_str(json.dumps(state)).encode("").ids
    return {
        "bos": "bos" in ids and empty[:1] == [ids["bos"]],
        "eos": "eos" in ids and len(empty) > 0 and empty[-1] == ids["eos"] and ids["eos"] != ids.get("bos"),
    }
