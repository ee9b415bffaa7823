"""What a worker can be asked: every operation of the protocol, with the capability that it rests on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from awqbench.backends.base import Backend, Capability
from awqbench.backends.registry import create
from awqbench.errors import NotApplicable
from awqbench.worker.protocol import VERSION, Arrays, Message, pack, unpack

# Scored sequences per part frame: large enough to be cheap, small enough to show progress.
SCORED_PER_PART = 8

Answer = tuple[Message, Arrays]


class Session:
    """A worker's backend, from its first request to its last. The backend's module is imported when it is loaded."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.description: dict[str, Any] = {}
        self._backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """The loaded backend."""
        if self._backend is None:
            raise RuntimeError("no model is loaded: the first request after hello is load")
        return self._backend

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """Import, load and describe. Raises BackendUnavailable where the module cannot be imported."""
        backend = create(self.target)
        self.description = backend.load(options)
        self._backend = backend
        return self.description

    def permit(self, op: str, message: Message) -> None:
        """Raise NotApplicable for an operation whose capability the backend did not declare."""
        if op not in RESULTS and op not in PARTS:
            raise ValueError(f"unknown operation {op!r} in worker protocol {VERSION}")
        needed = needs(op, message)
        declared = self.description.get("capabilities", ())
        if needed and needed not in declared:
            raise NotApplicable(f"{op} needs {needed}; this backend offers {', '.join(declared) or 'nothing'}")


def needs(op: str, message: Message) -> Capability | None:
    """The capability an operation rests on; None for those that every backend has."""
    if op == "logprobs":
        return "decode-logprobs" if message["path"] == "decode" else "logprobs"
    if op == "generate" and message.get("stop_texts"):
        return "stop-texts"
    return _NEEDS.get(op)


_NEEDS: Mapping[str, Capability] = {
    "score": "score",
    "topk_logprobs": "topk-logprobs",
    "generate": "generate",
    "time": "time",
    "tokenize": "tokenize",
}


def _hello(session: Session, message: Message, arrays: Arrays) -> Answer:
    return {"version": VERSION, "python": sys.version.split()[0], "pid": os.getpid()}, {}


def _load(session: Session, message: Message, arrays: Arrays) -> Answer:
    return {"description": session.load(message["options"])}, {}


def _describe(session: Session, message: Message, arrays: Arrays) -> Answer:
    return {"description": session.description}, {}


def _generate(session: Session, message: Message, arrays: Arrays) -> Answer:
    prompts, new_tokens, stop_ids = unpack(arrays), message["max_new_tokens"], message["stop_ids"]
    if texts := message.get("stop_texts"):
        return {}, pack(session.backend.generate_until(prompts, new_tokens, stop_ids, texts))
    return {}, pack(session.backend.generate(prompts, new_tokens, stop_ids))


def _time(session: Session, message: Message, arrays: Arrays) -> Answer:
    timing = session.backend.time(unpack(arrays), message["new_tokens"])
    told: Message = {"ttft_s": timing.ttft_s}
    if timing.otherwise:
        told["otherwise"] = timing.otherwise
    return told, {"gaps_s": np.asarray(timing.gaps_s, np.float64)}


def _tokenize(session: Session, message: Message, arrays: Arrays) -> Answer:
    return {}, pack(session.backend.tokenize(message["texts"], message["special"]))


def _memory(session: Session, message: Message, arrays: Arrays) -> Answer:
    return {"memory": session.backend.memory()}, {}


def _unload(session: Session, message: Message, arrays: Arrays) -> Answer:
    session.backend.unload()
    return {}, {}


def _score(session: Session, message: Message, arrays: Arrays) -> Iterator[Answer]:
    """Results leave in parts, so that the client can show progress and nothing large piles up here."""
    results = iter(session.backend.score(unpack(arrays), arrays["starts"].tolist()))
    while part := list(islice(results, SCORED_PER_PART)):
        yield (
            {"lengths": [len(scored.logprobs) for scored in part]},
            {
                "logprobs": np.concatenate([np.asarray(scored.logprobs, np.float32) for scored in part]),
                "argmax": np.concatenate([np.asarray(scored.argmax, np.int32) for scored in part]),
            },
        )


def _logprobs(session: Session, message: Message, arrays: Arrays) -> Iterator[Answer]:
    for chunk in session.backend.logprobs(arrays["ids"].tolist(), message["start"], message["path"]):
        yield {}, {"logprobs": np.asarray(chunk, np.float32)}
        del chunk  # tens of megabytes: it must be gone before the next one is made


def _topk_logprobs(session: Session, message: Message, arrays: Arrays) -> Iterator[Answer]:
    for top in session.backend.topk_logprobs(arrays["ids"].tolist(), message["start"], message["k"]):
        yield {}, {"ids": np.asarray(top.ids, np.int32), "logprobs": np.asarray(top.logprobs, np.float32)}


# Answered by one frame.
RESULTS: Mapping[str, Callable[[Session, Message, Arrays], Answer]] = {
    "hello": _hello,
    "load": _load,
    "describe": _describe,
    "generate": _generate,
    "time": _time,
    "tokenize": _tokenize,
    "memory": _memory,
    "unload": _unload,
}
# Answered by part frames, as many as there are, and an empty result.
PARTS: Mapping[str, Callable[[Session, Message, Arrays], Iterator[Answer]]] = {
    "score": _score,
    "logprobs": _logprobs,
    "topk_logprobs": _topk_logprobs,
}
