"""Checks of how a backend behaves: what it says of itself, what it refuses, what it leaves in memory."""

from __future__ import annotations

from typing import Any

from awqbench.backends.base import Capability
from awqbench.conformance.subject import TEXT, Subject
from awqbench.conformance.verdict import Failed, NotOffered
from awqbench.errors import NotApplicable
from awqbench.suites.likelihood import encode
from awqbench.worker.client import WorkerFailed
from awqbench.worker.promises import CAPABILITIES

_FIELDS: dict[str, Any] = {
    "dtype": str, "device": str, "kernel": str, "engine": str, "engine_version": str, "load_s": int | float | None,
    "max_positions": int, "vocab_size": int | None, "weight_bytes": int | None,
}  # fmt: skip
GROWTH_BYTES = 64 * 2**20
_ASKED: dict[Capability, tuple[str, dict[str, Any]]] = {
    "logprobs": ("logprobs", {"start": 1, "path": "prefill"}),
    "decode-logprobs": ("logprobs", {"start": 1, "path": "decode"}),
    "topk-logprobs": ("topk_logprobs", {"start": 1, "k": 1}),
    "score": ("score", {}),
    "generate": ("generate", {"max_new_tokens": 1, "stop_ids": []}),
    "stop-texts": ("generate", {"max_new_tokens": 1, "stop_ids": [], "stop_texts": ["a"]}),
    "time": ("time", {"new_tokens": 2}),
    "tokenize": ("tokenize", {"texts": ["a"], "special": False}),
}


def description_is_complete(subject: Subject) -> str:
    """Loading returns what a report and the suites need to know, each field of its type."""
    found = subject.worker.description
    for name, kind in _FIELDS.items():
        if name not in found:
            raise Failed(f"{name} is missing")
        if not isinstance(found[name], kind):
            raise Failed(f"{name} is {found[name]!r}")
    offered = found["capabilities"]
    if "topk-logprobs" in offered and not isinstance(found.get("topk"), int):
        raise Failed("topk, the largest k, is missing")
    if ({"logprobs", "decode-logprobs"} & set(offered)) and not found["vocab_size"]:
        raise Failed("vocab_size must be known where whole distributions are offered")
    if subject.worker.describe() != found:
        raise Failed("asked again, it describes itself otherwise")
    return f"{found['engine']} {found['engine_version']}, {found['dtype']}, offers {', '.join(offered) or 'nothing'}"


def tokenizers_agree(subject: Subject) -> str:
    """The engine's own tokenizer splits a text as the model's does."""
    subject.need("tokenize")
    texts = [*TEXT.split("\n"), " leading", "naïve café", "日本語", ""]
    theirs = subject.worker.tokenize(texts, special=False)
    wrong = [text for text, ids in zip(texts, theirs, strict=True) if ids != encode(subject.tokenizer, text, False)]
    if wrong:
        raise Failed(f"{len(wrong)} of {len(texts)} texts are split otherwise, first {wrong[0][:40]!r}")
    ours, its = encode(subject.tokenizer, "a"), subject.worker.tokenize(["a"], special=True)[0]
    if ours[:1] != its[:1]:
        raise Failed(f"a text begins with {its[:1]}, by the model's tokenizer with {ours[:1]}")
    return f"{len(texts)} texts alike, and what stands before them"


def memory_does_not_grow(subject: Subject) -> str:
    """The same request again and again leaves nothing behind."""
    subject.need("score")
    ones = [1] * len(subject.sequences)
    for _ in range(3):
        subject.worker.score(subject.sequences, ones)
    before = subject.worker.memory()
    if wrong := [f"{name} = {value!r}" for name, value in before.items() if type(value) is not int or value < 0]:
        raise Failed(f"bytes are counts: {wrong[0]}")
    if "host_now" not in before:
        raise NotOffered("no host_now among its memory figures")
    for _ in range(20):
        subject.worker.score(subject.sequences, ones)
    grown = subject.worker.memory()["host_now"] - before["host_now"]
    if grown > GROWTH_BYTES:
        raise Failed(f"{grown / 1e6:.1f} MB more after 20 requests (allowed {GROWTH_BYTES / 1e6:.0f})")
    return f"{grown / 1e6:+.1f} MB after 20 requests"


def what_is_not_offered_is_refused(subject: Subject) -> str:
    """An operation whose capability was not declared is refused as not applicable, and the worker goes on."""
    missing = [name for name in CAPABILITIES if name not in subject.worker.description["capabilities"]]
    if not missing:
        raise NotOffered("everything is offered")
    for name in missing:
        op, message = _ASKED[name]  # type: ignore[index]
        try:
            subject.worker.ask(op, message)
        except NotApplicable:
            continue
        raise Failed(f"{op} was answered without {name}")
    return f"refused: {', '.join(missing)}"


def unloading_works(subject: Subject) -> str:
    """unload frees the engine without an error; it is the last request."""
    subject.worker.unload()
    try:
        code = subject.worker.close(grace_s=30)
    except WorkerFailed as error:
        raise Failed(str(error)) from error
    if code != 0:
        raise Failed(f"the process then ended with status {code}")
    return "and the process ended with status 0"
