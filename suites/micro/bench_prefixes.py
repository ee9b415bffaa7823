r"""What shared beginnings save: an engine scoring the choices of a question together, against itself without that.

    AWQBENCH_DATA=... python suites/micro/bench_prefixes.py --model demo --rounds 3 --json out.json
    AWQBENCH_DATA=... python suites/micro/bench_prefixes.py --model demo --awq CHECKPOINT
    python suites/micro/bench_prefixes.py --model demo --passes

Each has its model in a worker of its own and scores the same questions in turns within a round, the one that begins
alternating, after a round that is not counted. Positions are what the forward calls were given, padding included, the
same in every round; processor time is that of the forward calls alone, and of the whole worker. A ratio is the median
over rounds of shared over whole, with a percentile bootstrap over rounds. Memory is the worker's peak while it scored
the set, weights included. Every log-likelihood is compared, and the likeliest choice of every question.

`--passes` times single forward calls, whole and behind 64 kept tokens: what the constants of awqbench.runtime.grouping
are taken from.
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
import psutil
import torch
from bench_tasks import Counting
from bench_worker import ratio
from transformers import PreTrainedTokenizerBase

from awqbench.backends.base import Scored, resident_set
from awqbench.backends.kind import Kind
from awqbench.backends.packed import PackedBackend
from awqbench.backends.reference import ReferenceBackend
from awqbench.backends.torch_engine import TorchEngine
from awqbench.record.environment import hardware
from awqbench.sources.models import load_tokenizer, resolve_model
from awqbench.suites.fairness_sets import choose, load_set
from awqbench.suites.likelihood import Pair, encode_pair, score_pairs
from awqbench.worker.client import Worker

FIGURES = ("positions", "forward processor", "processor", "memory")


class Counted(TorchEngine):
    """An engine whose forward calls are counted; `memory` gives the peak since it was last asked."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `Backend.load`."""
        found = super().load(options)
        self._counted = Counting(self.model)
        return found

    def memory(self) -> dict[str, int]:
        """What was counted, and host_peak and host_now."""
        figures = resident_set() | self._counted.figures()
        Path("/proc/self/clear_refs").write_text("5")
        return figures


class Shared(Counted, ReferenceBackend):
    """The reference."""


class SharedPacked(Counted, PackedBackend):
    """A packed checkpoint."""


class _FromTheFirst(Counted):
    """Every sequence from its first token on."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `Backend.load`."""
        found = super().load(options)
        self._prefixes.limit = 0
        return found


class Whole(_FromTheFirst, ReferenceBackend):
    """The reference."""


class WholePacked(_FromTheFirst, PackedBackend):
    """A packed checkpoint."""


def questions(tokenizer: PreTrainedTokenizerBase, sizes: dict[str, int]) -> dict[str, list[list[Pair]]]:
    """Context and choices of each question."""
    from awqbench.suites.task_loading import load_tasks

    found: dict[str, list[list[Pair]]] = {}
    for name, size in sizes.items():
        if name.endswith("_local"):
            (task,) = load_tasks([name], None, None, 0).values()
            task.build_all_requests(limit=size, rank=0, world_size=1)
            asked: dict[int, list[tuple[str, str]]] = {}
            for request in task.instances:
                asked.setdefault(request.doc_id, []).append(request.args)
            texts = list(asked.values())
        else:
            texts = [[(item.context, f" {c}") for c in item.choices] for item in choose(load_set(name).items, size, 0)]
        found[name] = [[encode_pair(tokenizer, *pair) for pair in question] for question in texts]
    return found


def asked_once(worker: Worker, pairs: list[Pair]) -> tuple[list[Scored], dict[str, float]]:
    """The scores, and what they cost: seconds of processor time, bytes, positions."""
    process = psutil.Process(worker.pid)
    before, used = worker.memory(), sum(process.cpu_times()[:2])
    scored = score_pairs(worker, pairs, int(worker.description["max_positions"]))
    processor, after = sum(process.cpu_times()[:2]) - used, worker.memory()
    return scored, {
        "positions": after["positions"] - before["positions"],
        "forward processor": (after["forward processor"] - before["forward processor"]) / 1e9,
        "processor": processor,
        "memory": after["host_peak"],
    }


def likeliest(scored: list[Scored], questions: list[list[Pair]]) -> list[int]:
    """The choice of each question with the largest log-likelihood."""
    values = iter(-one.nll for one in scored)
    return [int(np.argmax([next(values) for _ in question])) for question in questions]


def time_passes(options: dict[str, Any], rounds: int) -> None:
    """Print the least processor time of passes of several shapes, inputs times tokens."""
    engine = ReferenceBackend()
    engine.load(options)
    draw = np.random.default_rng(0)

    def inputs(count: int, length: int) -> list[tuple[int, ...]]:
        return [tuple(row) for row in draw.integers(3, 40_000, (count, length)).tolist()]

    cache = engine._prefixes.keep(inputs(16, 64))
    for rows, length in ((8, 2), (32, 2), (32, 8), (32, 32)):
        own = inputs(rows, length)
        ways: list[Callable[[], Any]] = [
            lambda own=own: engine._forward(torch.tensor(own), None),
            lambda own=own: engine._prefixes.follow(cache, 64, [row % 16 for row in range(len(own))], own),
        ]
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for way, found in zip(ways, times, strict=True):
                begin = time.process_time()
                way()
                found.append(1e3 * (time.process_time() - begin))
        print(f"{rows} x {length}: {min(times[0]):.0f} ms, behind 64 tokens {min(times[1]):.0f} ms", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--awq", type=Path, help="a packed checkpoint of the model, to measure in its place")
    parser.add_argument("--sets", default="bbq=20,hellaswag_local=20,counterfactual=30", help="questions of each")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", action="store_true", help="time single forward calls only")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    folder = resolve_model(asked.model).path
    options = {
        "model_dir": str(folder), "weights": str(asked.awq or folder), "dtype": "float32", "device": "cpu",
        "threads": asked.threads, "batch_size": asked.batch_size,
    }  # fmt: skip
    if asked.passes:
        return time_passes(options, asked.rounds)
    sizes = {name: int(size) for name, _, size in (part.partition("=") for part in asked.sets.split(","))}
    sets = questions(load_tokenizer(folder), sizes)
    here, suffix = {"PYTHONPATH": str(Path(__file__).parent)}, "Packed" if asked.awq else ""

    def open_worker(name: str) -> Worker:
        kind = Kind(name.lower(), f"bench_prefixes:{name}{suffix}", "counts its forward calls", weights="model")
        return Worker(kind, options, Path(scratch) / f"{name}.txt", environment=here)

    found: dict[str, Any] = {"machine": hardware(), "asked": {k: str(v) for k, v in vars(asked).items()}}
    with tempfile.TemporaryDirectory() as scratch, open_worker("Whole") as whole, open_worker("Shared") as shared:
        workers = {"whole": whole, "shared": shared}
        for name, own in sets.items():
            pairs = [pair for question in own for pair in question]
            warm = {who: asked_once(worker, pairs)[0] for who, worker in workers.items()}
            worst = max(abs(a.nll - b.nll) for a, b in zip(warm["whole"], warm["shared"], strict=True))
            other = sum(a != b for a, b in zip(*(likeliest(s, own) for s in warm.values()), strict=True))
            assert worst < 1e-3, f"log-likelihoods differ by {worst}"
            costs: dict[str, list[dict[str, float]]] = {who: [] for who in workers}
            for number in range(asked.rounds):
                for who in list(workers) if number % 2 else list(reversed(workers)):
                    costs[who].append(asked_once(workers[who], pairs)[1])
            found[name] = {"costs": costs, "largest_difference": worst, "other_answers": other}
            print(f"{name}: {len(own)} questions; largest difference of a log-likelihood {worst:.1e}; "
                  f"{other} answers differ", flush=True)  # fmt: skip
            for figure in FIGURES:
                one, two = ([cost[figure] for cost in costs[who]] for who in workers)
                middle, low, high = ratio(two, one)
                unit, by = {"positions": ("", 1), "memory": (" MB", 1e6)}.get(figure, (" s", 1))
                medians = [f"{np.median(costs) / by:,.5g}{unit}" for costs in (one, two)]
                print(f"  {figure:<17}  whole {medians[0]}, shared {medians[1]}: {middle:.3f} times "
                      f"[{low:.3f}, {high:.3f}]", flush=True)  # fmt: skip
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
