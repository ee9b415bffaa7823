"""What every engine's runner shares. Standard library only: each runs in an environment of its own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path


class Task(argparse.Namespace):
    """A checkpoint, the prompt's ids, and how much to answer."""

    checkpoint: str
    prompt: list[int]
    out: Path
    dtype: str
    top: int
    continuation: int

    @property
    def start(self) -> list[int]:
        """The beginning of the prompt, which is continued greedily."""
        return self.prompt[: len(self.prompt) // 4]


def asked() -> Task:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("prompt", type=lambda path: json.loads(Path(path).read_text(encoding="utf-8")))
    parser.add_argument("out", type=Path, help="the JSON file to write")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--top", type=int, default=100, help="tokens reported at each position")
    parser.add_argument("--continuation", type=int, default=16, help="tokens")
    return parser.parse_args(namespace=Task())


def answer(task: Task, version: str, top: Sequence[Mapping[int, float]], continuation: Sequence[int]) -> None:
    """Write the log-probabilities of the likeliest tokens after each but the last of the prompt, and what follows."""
    found = {"version": version, "top": top, "continuation": list(continuation)}
    task.out.write_text(json.dumps(found), encoding="utf-8")
