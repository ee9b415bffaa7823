"""The client's side of a worker: start it, ask it, and end it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import awqbench.errors as errors
from awqbench.backends import registry
from awqbench.backends.base import Capability, FloatArray, Scored, Timing, TopK
from awqbench.backends.base import Path as Route
from awqbench.backends.kind import Kind
from awqbench.worker import promises
from awqbench.worker.process import WorkerProcess
from awqbench.worker.promises import BrokenPromise
from awqbench.worker.protocol import VERSION, Arrays, ConnectionClosed, Message, pack, receive, send, unpack

# Beats come every two seconds, but native code may hold the interpreter for long while a model loads.
SILENCE_SECONDS = 300.0
# An interpreter has this long to start, however short the backend's own deadline is.
START_SECONDS = 120.0
# A worker whose connection was closed has this long to end by itself.
GRACE_SECONDS = 2.0


class WorkerFailed(Exception):
    """The worker died, hung, broke a promise or met a bug: the cell is lost, the run goes on.

    `log_tail` holds the last lines of the log, where whoever caught it first knew which log that is.
    """

    log_tail: tuple[str, ...] = ()


class Worker:
    """One backend in a process of its own. A context manager; `description` is what the backend said when it loaded.

    `kind` is a `Kind` or the name of one. Raises UserError, BackendUnavailable, InvalidMeasurement and
    NotApplicable as the backend raised them, WorkerFailed for the rest.
    """

    def __init__(
        self,
        kind: str | Kind,
        options: dict[str, Any],
        log: Path,
        *,
        python: str | None = None,
        timeout_s: float = 3600.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.kind = registry.kind(kind) if isinstance(kind, str) else kind
        self.options, self.log, self.timeout_s = options, log, timeout_s
        self.python = python or sys.executable
        self.environment = environment or {}
        self.description: dict[str, Any] = {}
        self.pid = 0
        self._requests = 0
        self._unanswered = False
        self._closed = False

    def __enter__(self) -> Worker:
        self._process = WorkerProcess(self.kind.target, self.log, self.python, self.environment)
        try:
            hello = self._ask("hello", timeout_s=max(self.timeout_s, START_SECONDS))[0]
            if hello["version"] != VERSION:
                raise WorkerFailed(f"the worker speaks protocol {hello['version']}, this awqbench speaks {VERSION}")
            self.pid = hello["pid"]
            found = self._ask("load", {"options": self.options})[0]["description"]
            self.description = self._kept("load", promises.description, found)
        except BaseException:
            self.close(grace_s=0)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.close(GRACE_SECONDS if kind is None else 0)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._closed and self._process.alive

    def close(self, grace_s: float = GRACE_SECONDS) -> int:
        """End the worker and every process it started, wherever these went. Returns its exit status (negative: signal).

        With a grace period of 0 it is not waited for: what was asked is not wanted any more.
        """
        self._closed = True
        return self._process.end(grace_s)

    def score(
        self,
        sequences: Sequence[Sequence[int]],
        starts: Sequence[int],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Scored]:
        """Log-probabilities of each sequence's own tokens from its start (1 <= start <= length) on."""
        scored: list[Scored] = []
        if not sequences:
            return scored
        expected = [len(sequence) - start for sequence, start in zip(sequences, starts, strict=True)]
        for message, arrays in self._stream("score", {}, {**pack(sequences), "starts": np.asarray(starts, np.int32)}):
            if message["kind"] == "part":
                lengths = message["lengths"]
                self._kept("score", promises.scored_lengths, lengths, expected, len(scored))
                self._kept("score", promises.aligned, lengths, **arrays)
                for end, length in zip(np.cumsum(lengths).tolist(), lengths, strict=True):
                    span = slice(end - length, end)
                    scored.append(Scored(arrays["logprobs"][span], arrays["argmax"][span]))
                if progress:
                    progress(len(scored), len(sequences))
        self._kept("score", promises.count, "results", len(scored), len(sequences))
        return scored

    def logprobs(self, ids: Sequence[int], start: int, path: Route) -> Iterator[FloatArray]:
        """Full-vocabulary log-probabilities in chunks of rows; see `Backend.logprobs`."""
        request = {"start": start, "path": path}
        rows = 0
        for message, arrays in self._stream("logprobs", request, {"ids": np.asarray(ids, np.int32)}):
            if message["kind"] == "part":
                vocabulary = self.description.get("vocab_size")
                rows += len(self._kept("logprobs", promises.rows, arrays["logprobs"], vocabulary))
                yield arrays["logprobs"]
            del arrays
        self._kept("logprobs", promises.count, "rows", rows, len(ids) - start)

    def topk_logprobs(self, ids: Sequence[int], start: int, k: int) -> Iterator[TopK]:
        """The k most likely tokens in chunks of rows; see `Backend.topk_logprobs`."""
        request = {"start": start, "k": k}
        rows = 0
        for message, arrays in self._stream("topk_logprobs", request, {"ids": np.asarray(ids, np.int32)}):
            if message["kind"] == "part":
                self._kept("topk_logprobs", promises.top, arrays["ids"], arrays["logprobs"], k)
                rows += len(arrays["ids"])
                yield TopK(arrays["ids"], arrays["logprobs"])
        self._kept("topk_logprobs", promises.count, "rows", rows, len(ids) - start)

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Ids by the engine's own tokenizer, with what it adds by default where `special`."""
        found = unpack(self._ask("tokenize", {"texts": list(texts), "special": special})[1])
        self._kept("tokenize", promises.count, "texts", len(found), len(texts))
        return found

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_ids: Sequence[int],
        stop_texts: Sequence[str] = (),
    ) -> list[list[int]]:
        """Greedy continuations without their prompts; those that hold a stop text end there if the backend can."""
        if not prompts:
            return []
        request: Message = {"max_new_tokens": max_new_tokens, "stop_ids": list(stop_ids)}
        if stop_texts and self.offers("stop-texts"):
            request["stop_texts"] = list(stop_texts)
        answers = unpack(self._ask("generate", request, pack(prompts))[1])
        self._kept("generate", promises.count, "continuations", len(answers), len(prompts))
        return answers

    def time(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
        """Time one generation of a batch of equally long prompts."""
        message, arrays = self._ask("time", {"new_tokens": new_tokens}, pack(prompts))
        gaps = self._kept("time", promises.gaps, arrays["gaps_s"], new_tokens - 1)
        return Timing(message["ttft_s"], gaps, message.get("otherwise"))

    def memory(self) -> dict[str, int]:
        """Bytes by name, as the backend reports them."""
        figures: dict[str, int] = self._ask("memory")[0]["memory"]
        return figures

    def describe(self) -> dict[str, Any]:
        """What the backend said when it loaded, asked again."""
        description: dict[str, Any] = self._ask("describe")[0]["description"]
        return description

    def unload(self) -> None:
        """Have the engine give its memory back."""
        self._ask("unload")

    def offers(self, capability: Capability) -> bool:
        """Whether the loaded backend can do this."""
        return capability in self.description.get("capabilities", ())

    def ask(self, op: str, message: Message, arrays: Arrays | None = None) -> tuple[Message, Arrays]:
        """One operation of the protocol as it is: the last frame of the answer."""
        return self._ask(op, message, arrays)

    def _ask(
        self, op: str, message: Message | None = None, arrays: Arrays | None = None, timeout_s: float | None = None
    ) -> tuple[Message, Arrays]:
        *_, last = self._stream(op, message or {}, arrays, timeout_s)
        return last

    def _stream(
        self, op: str, message: Message, arrays: Arrays | None, timeout_s: float | None = None
    ) -> Iterator[tuple[Message, Arrays]]:
        if self._closed:
            raise WorkerFailed(f"{op}: the worker is gone")
        allowed = timeout_s or self.timeout_s
        deadline = time.monotonic() + allowed
        try:
            while self._unanswered:  # an abandoned stream: whoever sends while the other sends too may wait for ever
                self._receive(deadline)
            self._requests += 1
            self._process.connection.settimeout(min(allowed, SILENCE_SECONDS))
            self._unanswered = True
            send(self._process.connection, {"id": self._requests, "op": op, **message}, arrays)
            while self._unanswered:
                reply, found = self._receive(deadline)
                if reply["kind"] == "beat":
                    continue
                if reply["kind"] == "error":
                    raise self._error(op, reply)
                yield reply, found
                del found  # a large chunk must not wait here for the next one
                deadline = time.monotonic() + allowed  # what comes in parts is alive while parts come
        except ConnectionClosed as error:
            raise WorkerFailed(f"{op}: {self._process.obituary()}") from error
        except TimeoutError as error:
            waited = "no answer within its deadline" if time.monotonic() >= deadline else "no sign of life"
            self.close(grace_s=0)
            raise WorkerFailed(f"{op}: {waited} ({allowed:g} s allowed); the worker was killed") from error

    def _receive(self, deadline: float) -> tuple[Message, Arrays]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._process.connection.settimeout(min(left, SILENCE_SECONDS))
        reply, found = receive(self._process.connection)
        if reply["kind"] in {"result", "error"} and reply["id"] == self._requests:
            self._unanswered = False
        return reply, found

    def _error(self, op: str, reply: Message) -> Exception:
        if reply["type"] != "bug":
            kind: type[Exception] = getattr(errors, reply["type"])
            return kind(reply["message"])
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(reply["traceback"])
        return WorkerFailed(f"{op}: {reply['message'].splitlines()[0]} (traceback in the cell's log.txt)")

    def _kept(self, op: str, check: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What the check returns. Raises WorkerFailed where it finds a promise broken."""
        try:
            return check(*arguments, **named)
        except BrokenPromise as error:
            raise WorkerFailed(f"{op}: {error}") from error
