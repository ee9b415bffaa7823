r"""What the worker costs: the reference's engine scoring in a worker process against the same engine called in process.

    python suites/micro/bench_worker.py --model demo --rounds 9 --threads 1 --json out.json

The items are those of a real run: sequences of a multiple-choice task and windows of a text. Both contestants take
turns within a round, and the one that begins alternates, so that what else the machine does meets them alike. A ratio
is the median over rounds of worker over in-process time, with a percentile bootstrap over rounds. Processor time, of
the client and the worker together, is given beside the clock's: with one thread it hardly depends on what else runs.
Every result is compared: the worker's numbers must be the engine's own, to the last bit. First, an engine that does
nothing answers the same requests: that is the protocol's own time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from awqbench.backends.base import BackendBase, Scored
from awqbench.backends.kind import Kind
from awqbench.backends.registry import create, kind
from awqbench.record.environment import hardware
from awqbench.resources import content
from awqbench.sources.models import load_tokenizer, resolve_model
from awqbench.sources.texts import resolve_text
from awqbench.suites.likelihood import encode, encode_pair
from awqbench.worker.client import Worker

Items = tuple[list[list[int]], list[int]]


class Nothing(BackendBase):
    """Scores of zero, at once."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"load_s": 0.0, "capabilities": ["score"]}

    def score(self, sequences: list[list[int]], starts: list[int]) -> Iterator[Scored]:
        for sequence, start in zip(sequences, starts, strict=True):
            yield Scored(np.zeros(len(sequence) - start, np.float32), np.zeros(len(sequence) - start, np.int32))


def protocol_alone(sets: dict[str, Items], scratch: Path, rounds: int = 200) -> dict[str, float]:
    """Median milliseconds of a request to an engine that does nothing."""
    kind = Kind("nothing", "bench_worker:Nothing", "does nothing", weights="model")
    found = {}
    with Worker(kind, {}, scratch / "nothing.txt", environment={"PYTHONPATH": str(Path(__file__).parent)}) as worker:
        for name, (sequences, starts) in sets.items():
            times = []
            for _ in range(rounds):
                begin = time.perf_counter()
                worker.score(sequences, starts)
                times.append(time.perf_counter() - begin)
            found[name] = 1000 * float(np.median(times))
            print(f"the protocol alone, {name}: {found[name]:.2f} ms a request")
    return found


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


def in_turns(contestants: dict[str, Callable[[], list[Scored]]], rounds: int, worker: int) -> dict[str, Any]:
    """Seconds of each contestant in each round, by the clock and of processors; `worker` is a process id."""
    process = psutil.Process(worker)

    def busy() -> float:
        used = process.cpu_times()
        return time.process_time() + used.user + used.system

    seconds: dict[str, Any] = {name: {"clock": [], "processor": []} for name in contestants}
    for number in range(rounds):
        order = list(contestants)
        for name in order if number % 2 else reversed(order):
            begin, used = time.perf_counter(), busy()
            contestants[name]()
            seconds[name]["clock"].append(time.perf_counter() - begin)
            seconds[name]["processor"].append(busy() - used)
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
    with tempfile.TemporaryDirectory() as scratch:
        alone = protocol_alone(sets, Path(scratch))
    engine = create(kind("reference").target)
    engine.load(options)
    found: dict[str, Any] = {
        "machine": hardware(),
        "threads": asked.threads,
        "rounds": asked.rounds,
        "protocol_ms": alone,
    }
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
            seconds = in_turns(contestants, asked.rounds, worker.pid)
            tokens = sum(map(len, sequences))
            found[name] = {"tokens": tokens, "seconds": seconds}
            print(f"{name} ({tokens} tokens)")
            for series in ("clock", "processor"):
                one, other = (seconds[who][series] for who in contestants)
                middle, low, high = ratio(other, one)
                found[name][series] = {"ratio": middle, "low": low, "high": high}
                print(
                    f"  {series:<9}  in process {np.median(one):.3f} s, worker {np.median(other):.3f} s: "
                    f"{middle:.3f} times [{low:.3f}, {high:.3f}]"
                )
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
