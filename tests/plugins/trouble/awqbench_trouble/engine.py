"""A table of bigrams as a language model, and every way in which an engine can fail."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from awqbench.backends.base import BackendBase, Scored, Timing
from awqbench.errors import UserError

GARBAGE = bytes(range(256)) * 64 + b'\x1b[31m\x00\x00\x00\x08{"id": 1}\n'


class Trouble(BackendBase):
    """Right unless the option `how` names what goes wrong."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        self.how = options.get("settings", {}).get("how", "")
        if self.how == "exits at load":
            print("reading the weights")
            print("cannot map <b>block 7</b> | of the weights", file=sys.stderr)
            os._exit(3)
        if self.how == "refuses":
            print("looking at the weights")
            raise UserError("the weights are of a kind this engine does not take (allowed: tables)")
        if self.how == "noise":
            noise()
        vocabulary = json.loads((Path(options["model_dir"]) / "config.json").read_text())["vocab_size"]
        logits = np.random.default_rng(0).normal(size=(vocabulary, vocabulary))
        self.table = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
        return {
            "vocab_size": vocabulary, "max_positions": 2048, "dtype": "float32", "device": "cpu", "kernel": "a table",
            "weight_bytes": self.table.nbytes, "load_s": 0.01, "engine": "trouble", "engine_version": "1.0",
            "capabilities": ["score"], "modules": sorted(sys.modules),
        }  # fmt: skip

    def score(self, sequences: list[list[int]], starts: list[int]) -> Iterator[Scored]:
        print(f"scoring {len(sequences)} sequences", flush=True)
        for number, (ids, start) in enumerate(zip(sequences, starts, strict=True)):
            if number == 1 and self.how in TROUBLES:
                TROUBLES[self.how]()
            if number == 1 and self.how == "too few":
                return
            rows = self.table[ids[start - 1 : -1]]
            own = rows[np.arange(len(rows)), ids[start:]]
            best = rows.argmax(1).astype(np.int32)[: -1 if self.how == "short argmax" else None]
            yield Scored(own * np.nan if self.how == "nan" else own, best)

    def memory(self) -> dict[str, int]:
        """The ids of three processes that were started to outlive this one."""
        if self.how != "children":
            return super().memory()
        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        return {"session": child.pid, "orphan": orphan(dict(os.environ)), "stranger": orphan({})}


class Wide(BackendBase):
    """Distributions over a large vocabulary, and times that are no times."""

    vocabulary = 131_072

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"vocab_size": self.vocabulary, "load_s": 0.0, "capabilities": ["logprobs", "time"]}

    def logprobs(self, ids: list[int], start: int, path: str) -> Iterator[np.ndarray]:
        for low in range(start - 1, len(ids) - 1, 128):
            rows = min(128, len(ids) - 1 - low)
            yield np.full((rows, self.vocabulary), -np.log(self.vocabulary), np.float32)

    def time(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        said = "a slower step: the fast one takes one sequence" if len(prompts) > 1 else None
        return Timing(0.5, [0.25] * (new_tokens - 1), said)


def orphan(environment: dict[str, str]) -> int:
    """A process without a parent, in a session of its own."""
    read, write = os.pipe()
    if not (middle := os.fork()):
        os.setsid()
        if child := os.fork():
            os.write(write, str(child).encode())
            os._exit(0)
        os.execve("/bin/sleep", ["sleep", "300"], environment)
    os.waitpid(middle, 0)
    return int(os.read(read, 20))


def noise() -> None:
    for stream in (1, 2):
        os.write(stream, GARBAGE)


def fail() -> None:
    raise RuntimeError("the cache has 0 pages")


TROUBLES: dict[str, Callable[[], object]] = {
    "exits": lambda: os._exit(7),
    "crashes": lambda: ctypes.string_at(0),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hangs": lambda: time.sleep(600),
    "raises": fail,
    "noise": noise,
}
