"""What every peer's runner shares. Standard library only: each runs in an environment of its own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


class Task(argparse.Namespace):
    """One quantization: what the runners are asked for on their command line."""

    model: str
    windows: list[list[int]]
    out: str
    bits: int
    group_size: int
    symmetric: bool
    method: str


def task(*methods: str) -> Task:
    """Parse the command line. `windows` is a JSON file of calibration token ids [windows][tokens], one length."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="a full-precision Hugging Face folder")
    parser.add_argument("windows", type=lambda path: json.loads(Path(path).read_text(encoding="utf-8")))
    parser.add_argument("out", help="the checkpoint folder to write")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--symmetric", action="store_true")
    parser.add_argument("--method", choices=methods, default=methods[0])
    return parser.parse_args(namespace=Task())
