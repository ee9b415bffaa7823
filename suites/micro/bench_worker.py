r"""What the worker costs: the reference's engine scoring in a worker process against the same engine called in process.

    python suites/micro/bench_worker.py --model demo --rounds 9 --threads 1 --json out.json

The items are those of a real run: sequences of a multiple-choice task and windows of a text. Both contestants take
turns within a round, and the one that begins alternates, so that what else the machine does meets them alike. A ratio
is the median over rounds of worker over in-process time, with a percentile bootstrap over rounds. Every result is
compared: the worker's numbers must be the engine's own, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from awqbench.backends.base import Scored
from awqbench.backends.registry import create, kind
from awqbench.record.environment import hardware
from awqbench.resources import content
from awqbench.sources.models import load_tokenizer, resolve_model
from awqbench.sources.texts import resolve_text
from awqbench.suites.likelihood import encode, encode_pair
from awqbench.worker.client import Worker

Items = tuple[list[list[int]], list[int]]


def choices(tokenizer: Any, count: int) -> Items:
    """Context and choice of the first items of the commonplace task, scored from the choice on."""
    lines = (content("suites") / "tasks" / "awqbench_commonplace.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [
        encode_pair(tokenizer, item["context"], f" {choice}")
        for item in map(json.loads, lines)
        for choice in item["choices"]
    ][:count]
    return [[*context, *answer] for context, answer in pairs], [len(context) for context, _ in pairs]


def windows(tokenizer: Any, count: int, length: int) -> Items:
    """Windows of a text, scored from their second token on."""
    ids = encode(tokenizer, resolve_text("pydoc-topics").content[: 20 * count * length])
    return [ids[i * length : (i + 1) * length] for i in range(count)], [1] * count


def in_turns(contestants: dict[str, Callable[[], list[Scored]]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        order = list(contestants)
        for name in order if number % 2 else reversed(order):
            begin = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(over: list[float], under: list[float], draws: int = 4000) -> tuple[float, float, float]:
    """Median of the rounds' ratios and its 95 % percentile bootstrap interval."""
    ratios = np.array(over) / np.array(under)
    picks = np.random.default_rng(0).integers(0, len(ratios), (draws, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=64, help="of the multiple-choice task")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    folder = resolve_model(asked.model).path
    tokenizer = load_tokenizer(folder)
    sets = {
        f"{asked.sequences} choices": choices(tokenizer, asked.sequences),
        f"{asked.windows} windows of {asked.window}": windows(tokenizer, asked.windows, asked.window),
    }
    options = {
        "model_dir": str(folder), "weights": str(folder), "dtype": "float32", "device": "cpu",
        "threads": asked.threads, "batch_size": None,
    }  # fmt: skip
    engine = create(kind("reference").target)
    engine.load(options)
    found: dict[str, Any] = {"machine": hardware(), "threads": asked.threads, "rounds": asked.rounds}
    with tempfile.TemporaryDirectory() as scratch, Worker("reference", options, Path(scratch) / "log.txt") as worker:
        for name, (sequences, starts) in sets.items():
            contestants: dict[str, Callable[[], list[Scored]]] = {
                "in process": lambda s=sequences, b=starts: list(engine.score(s, b)),  # type: ignore[misc]
                "worker": lambda s=sequences, b=starts: worker.score(s, b),  # type: ignore[misc]
            }
            warm = {who: call() for who, call in contestants.items()}
            for one, other in zip(warm["in process"], warm["worker"], strict=True):
                assert np.array_equal(one.logprobs, other.logprobs)
                assert np.array_equal(one.argmax, other.argmax)
            seconds = in_turns(contestants, asked.rounds)
            middle, low, high = ratio(seconds["worker"], seconds["in process"])
            tokens = sum(map(len, sequences))
            found[name] = {"seconds": seconds, "ratio": middle, "low": low, "high": high, "tokens": tokens}
            medians = ", ".join(f"{who} {np.median(times):.3f} s" for who, times in seconds.items())
            print(f"{name} ({tokens} tokens): {medians}; worker / in process {middle:.3f} [{low:.3f}, {high:.3f}]")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
