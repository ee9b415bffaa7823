"""The worker process: `python -m awqbench.worker --fd N --backend MODULE:CLASS`. See protocol.py."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import sys
import threading
import traceback
from typing import Any

import numpy as np

from awqbench.backends.base import Backend, Scored
from awqbench.backends.registry import create
from awqbench.errors import AwqbenchError
from awqbench.worker.protocol import (
    BEAT_SECONDS,
    VERSION,
    Arrays,
    ConnectionClosed,
    Message,
    pack,
    receive,
    send,
    unpack,
)

# Scored sequences per part frame: large enough to be cheap, small enough to show progress.
_PART = 8


class Server:
    """Answers one request at a time; a second thread says that the process lives."""

    def __init__(self, connection: socket.socket, backend: Backend) -> None:
        self.connection = connection
        self.backend = backend
        self.request = 0
        self.description: dict[str, Any] = {}
        self.lock = threading.Lock()

    def reply(self, kind: str, message: Message | None = None, arrays: Arrays | None = None) -> None:
        """Send one frame for the current request."""
        with self.lock:
            send(self.connection, {"id": self.request, "kind": kind, **(message or {})}, arrays)

    def beat(self) -> None:
        """Say every few seconds that the process lives, until the client is gone."""
        quiet = threading.Event()
        while not quiet.wait(BEAT_SECONDS):
            try:
                self.reply("beat")
            except ConnectionClosed:
                os._exit(1)  # the client is gone: whatever the engine computes now has no reader

    def serve(self) -> None:
        """Answer requests until the client closes the connection."""
        threading.Thread(target=self.beat, daemon=True).start()
        while True:
            try:
                message, arrays = receive(self.connection)
            except ConnectionClosed:
                return
            self.request = message.pop("id")
            try:
                self.answer(message.pop("op"), message, arrays)
            except ConnectionClosed:
                return
            except Exception as error:
                known = type(error).__name__ if isinstance(error, AwqbenchError) else "bug"
                text = str(error) or type(error).__name__
                self.reply("error", {"type": known, "message": text, "traceback": traceback.format_exc()})

    def answer(self, op: str, message: Message, arrays: Arrays) -> None:
        """One request."""
        backend = self.backend
        if op == "hello":
            self.reply("result", {"version": VERSION, "python": sys.version.split()[0]})
        elif op == "load":
            self.description = backend.load(message["options"])
            self.reply("result", {"description": self.description})
        elif op == "describe":
            self.reply("result", {"description": self.description})
        elif op == "score":
            self.score(unpack(arrays), arrays["starts"].tolist())
        elif op == "logprobs":
            for chunk in backend.logprobs(arrays["ids"].tolist(), message["start"], message["path"]):
                self.reply("part", arrays={"logprobs": chunk})
            self.reply("result")
        elif op == "topk_logprobs":
            for top in backend.topk_logprobs(arrays["ids"].tolist(), message["start"], message["k"]):
                self.reply("part", arrays={"ids": top.ids, "logprobs": top.logprobs})
            self.reply("result")
        elif op == "generate":
            answers = backend.generate(unpack(arrays), message["max_new_tokens"], message["stop_ids"])
            self.reply("result", {"answers": answers})
        elif op == "time":
            timing = backend.time(unpack(arrays), message["new_tokens"])
            self.reply("result", {"ttft_s": timing.ttft_s, "gaps_s": timing.gaps_s})
        elif op == "tokenize":
            self.reply("result", arrays=pack(backend.tokenize(message["texts"], message["special"])))
        elif op == "memory":
            self.reply("result", {"memory": backend.memory()})
        elif op == "unload":
            backend.unload()
            self.reply("result")
        else:
            raise ValueError(f"unknown operation {op!r} in worker protocol {VERSION}")

    def score(self, sequences: list[list[int]], starts: list[int]) -> None:
        """Results leave in parts, so that the client can show progress and nothing large piles up here."""
        part: list[Scored] = []

        def flush() -> None:
            if part:
                self.reply(
                    "part",
                    {"lengths": [len(s.logprobs) for s in part]},
                    {
                        "logprobs": np.concatenate([s.logprobs for s in part]),
                        "argmax": np.concatenate([s.argmax for s in part]),
                    },
                )
                part.clear()

        for scored in self.backend.score(sequences, starts):
            part.append(scored)
            if len(part) == _PART:
                flush()
        flush()
        self.reply("result")


def die_with_parent() -> None:
    """On Linux, have the kernel end this process when the one that started it ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(arguments: list[str] | None = None) -> Any:
    """Serve on an inherited socket."""
    parser = argparse.ArgumentParser(prog="python -m awqbench.worker")
    parser.add_argument("--fd", type=int, required=True, help="inherited Unix stream socket")
    parser.add_argument("--parent", type=int, required=True, help="process to die with")
    parser.add_argument("--backend", required=True, help="module:Class of the backend")
    options = parser.parse_args(arguments)
    die_with_parent()
    if os.getppid() != options.parent:  # it ended before the line above
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's to handle
    connection = socket.socket(fileno=options.fd)
    Server(connection, create(options.backend)).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
