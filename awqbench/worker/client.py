"""The client's side of a worker process: start it, ask it, and end it with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import awqbench.errors as errors
from awqbench.backends import registry
from awqbench.backends.base import Capability, FloatArray, Scored, Timing, TopK
from awqbench.backends.base import Path as Route
from awqbench.worker.protocol import VERSION, Arrays, ConnectionClosed, Message, pack, receive, send, unpack

# Beats come every two seconds, but native code may hold the interpreter for long while a model loads.
SILENCE_SECONDS = 300.0


class WorkerFailed(Exception):
    """The worker died, hung or met a bug: the cell is lost, the run goes on."""


class Worker:
    """One backend in a process of its own. A context manager; `description` is what the backend said when it loaded.

    Raises UserError, BackendUnavailable and InvalidMeasurement as the backend raised them, WorkerFailed for the rest.
    """

    def __init__(
        self,
        kind: str,
        options: dict[str, Any],
        log: Path,
        *,
        python: str | None = None,
        timeout_s: float = 3600.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.kind, self.options, self.log, self.timeout_s = kind, options, log, timeout_s
        self.python = python or sys.executable
        self.environment = environment or {}
        self.description: dict[str, Any] = {}
        self._requests = 0

    def __enter__(self) -> Worker:
        ours, theirs = socket.socketpair()
        command = [
            self.python, "-P", "-m", "awqbench.worker",
            "--fd", str(theirs.fileno()), "--parent", str(os.getpid()), "--backend", registry.kind(self.kind).target,
        ]  # fmt: skip
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", **self.environment}
        if self.python != sys.executable:
            env["PYTHONPATH"] = str(_package_only_path())
        try:
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    pass_fds=[theirs.fileno()], start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            ours.close()
            raise errors.BackendUnavailable(f"cannot start {self.python}: {error.strerror}") from error
        finally:
            theirs.close()
        self._socket = ours
        try:
            version = self._ask("hello")[0]["version"]
            if version != VERSION:
                raise WorkerFailed(f"the worker speaks protocol {version}, this awqbench speaks {VERSION}")
            self.description = self._ask("load", {"options": self.options})[0]["description"]
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self.process.pid

    def close(self) -> None:
        """End the worker and every process it started."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

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
        for message, arrays in self._stream("score", {}, {**pack(sequences), "starts": np.asarray(starts, np.int32)}):
            if message["kind"] == "part":
                ends = np.cumsum(message["lengths"])
                for end, length in zip(ends, message["lengths"], strict=True):
                    span = slice(int(end) - length, int(end))
                    scored.append(Scored(arrays["logprobs"][span], arrays["argmax"][span]))
                if progress:
                    progress(len(scored), len(sequences))
        return scored

    def logprobs(self, ids: Sequence[int], start: int, path: Route) -> Iterator[FloatArray]:
        """Full-vocabulary log-probabilities in chunks of rows; see `Backend.logprobs`."""
        request = {"start": start, "path": path}
        for message, arrays in self._stream("logprobs", request, {"ids": np.asarray(ids, np.int32)}):
            if message["kind"] == "part":
                yield arrays["logprobs"]

    def topk_logprobs(self, ids: Sequence[int], start: int, k: int) -> Iterator[TopK]:
        """The k most likely tokens in chunks of rows; see `Backend.topk_logprobs`."""
        request = {"start": start, "k": k}
        for message, arrays in self._stream("topk_logprobs", request, {"ids": np.asarray(ids, np.int32)}):
            if message["kind"] == "part":
                yield TopK(arrays["ids"], arrays["logprobs"])

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Ids by the engine's own tokenizer, with what it adds by default where `special`."""
        return unpack(self._ask("tokenize", {"texts": list(texts), "special": special})[1])

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop_ids: Sequence[int]
    ) -> list[list[int]]:
        """Greedy continuations without their prompts."""
        if not prompts:
            return []
        request = {"max_new_tokens": max_new_tokens, "stop_ids": list(stop_ids)}
        answers: list[list[int]] = self._ask("generate", request, pack(prompts))[0]["answers"]
        return answers

    def time(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
        """Time one generation of a batch of equally long prompts."""
        message, _ = self._ask("time", {"new_tokens": new_tokens}, pack(prompts))
        return Timing(message["ttft_s"], message["gaps_s"])

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

    def _ask(self, op: str, message: Message | None = None, arrays: Arrays | None = None) -> tuple[Message, Arrays]:
        *_, last = self._stream(op, message or {}, arrays)
        return last

    def _stream(self, op: str, message: Message, arrays: Arrays | None) -> Iterator[tuple[Message, Arrays]]:
        self._requests += 1
        deadline = time.monotonic() + self.timeout_s
        try:
            self._socket.settimeout(SILENCE_SECONDS)
            send(self._socket, {"id": self._requests, "op": op, **message}, arrays)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(min(left, SILENCE_SECONDS))
                reply, found = receive(self._socket)
                if reply["kind"] == "beat" or reply["id"] != self._requests:
                    continue
                if reply["kind"] == "error":
                    raise self._error(op, reply)
                yield reply, found
                if reply["kind"] == "result":
                    return
                deadline = time.monotonic() + self.timeout_s  # what comes in parts is alive while parts come
        except ConnectionClosed as error:
            raise WorkerFailed(f"{op}: {self._obituary()}") from error
        except TimeoutError as error:
            self.process.kill()
            waited = "no answer within its deadline" if time.monotonic() >= deadline else "no sign of life"
            raise WorkerFailed(f"{op}: {waited} ({self.timeout_s:g} s allowed); the worker was killed") from error

    def _error(self, op: str, reply: Message) -> Exception:
        if reply["type"] != "bug":
            kind: type[Exception] = getattr(errors, reply["type"])
            return kind(reply["message"])
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(reply["traceback"])
        return WorkerFailed(f"{op}: {reply['message'].splitlines()[0]} (traceback in the cell's log.txt)")

    def _obituary(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5.0)
        code = self.process.poll()
        if code is not None and code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"the worker was ended by {signal.Signals(-code).name}{hint}"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the worker exited with status {code}: {lines[-1] if lines else 'it said nothing'}"


def _package_only_path() -> Path:
    """A folder that holds this package and nothing else, for another interpreter's PYTHONPATH."""
    from awqbench.cache import cache_dir

    package = Path(errors.__file__).resolve().parent
    folder = cache_dir("worker-path") / sha256(str(package).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / "awqbench").symlink_to(package)
    return folder
