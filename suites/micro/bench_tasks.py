r"""What a task costs: lm-eval's own HFLM against the tasks suite's worker, on the same items in the same batches.

    AWQBENCH_DATA=... python suites/micro/bench_tasks.py --model demo --batch-size 8 --rounds 5 --json out.json

Both answer the requests that lm-eval makes of the same documents, in turns within a round, the one that begins
alternating; each is warmed by a round that is not counted, and each has its model in one process: HFLM in this one, the
reference's engine in a worker. Four things are counted: the clock over the whole of lm-eval's `evaluate` (requests,
tokenization, metrics), the clock and the processor time of the model's forward calls alone, and the processor time of
everything, this process and the worker together. Positions are what the forward calls were given, padding included: a
count, the same in every round. A ratio is the median over rounds of ours over HFLM's, with a percentile bootstrap over
rounds. Every log-likelihood and every generated text is compared. `--tasks commonplace_lines` (suites/micro/tasks) is
generation: answers that end with a sentence or a line, by stop texts of two characters.
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
from bench_worker import ratio
from torch import nn

from awqbench.backends.kind import Kind
from awqbench.backends.reference import ReferenceBackend
from awqbench.record.environment import hardware
from awqbench.sources.models import load_tokenizer, resolve_model
from awqbench.suites.tasks import quiet
from awqbench.worker.client import Worker

SERIES = ("evaluate", "forward", "forward processor", "processor")


class Counting:
    """Adds up the time of a model's forward calls and the positions they were given."""

    def __init__(self, model: nn.Module) -> None:
        self.seconds, self.processor, self.positions = 0.0, 0.0, 0
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._end)

    def _begin(self, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = inputs[0] if inputs else named["input_ids"]
        self.positions += ids.numel()
        self._began = time.perf_counter(), time.process_time()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.processor += time.process_time() - self._began[1]

    def figures(self) -> dict[str, int]:
        """Totals since the start, as whole numbers."""
        return {
            "forward": round(1e9 * self.seconds),
            "forward processor": round(1e9 * self.processor),
            "positions": self.positions,
        }


class CountingReference(ReferenceBackend):
    """The reference's engine, with its forward calls counted and told as if they were memory."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `Backend.load`."""
        found = super().load(options)
        self._counted = Counting(self.model)
        return found

    def memory(self) -> dict[str, int]:
        """What was counted."""
        return self._counted.figures()


def run_in_turns(
    contestants: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, int]]]], rounds: int, worker: int
) -> dict[str, dict[str, list[float]]]:
    """Each contestant's seconds of each series and its positions, a round at a time."""
    process = psutil.Process(worker)

    def busy() -> float:
        used = process.cpu_times()
        return time.process_time() + used.user + used.system

    found: dict[str, dict[str, list[float]]] = {
        name: {series: [] for series in (*SERIES, "positions")} for name in contestants
    }
    for number in range(rounds):
        order = list(contestants)
        for name in order if number % 2 else reversed(order):
            evaluate, figures = contestants[name]
            before, begin, used = figures(), time.perf_counter(), busy()
            evaluate()
            own = {"evaluate": time.perf_counter() - begin, "processor": busy() - used}
            after = figures()
            own |= {key: (after[key] - before[key]) / (1 if key == "positions" else 1e9) for key in after}
            for key, value in own.items():
                found[name][key].append(value)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tasks", default="awqbench_commonplace,winogrande_local")
    parser.add_argument("--items", type=int, default=50, help="of each task")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.set_grad_enabled(False)
    folder = resolve_model(asked.model).path
    options = {
        "model_dir": str(folder), "weights": str(folder), "dtype": "float32", "device": "cpu",
        "threads": asked.threads, "batch_size": asked.batch_size,
    }  # fmt: skip
    kind = Kind("counting", "bench_tasks:CountingReference", "counts its forward calls", weights="model")
    here = {"PYTHONPATH": str(Path(__file__).parent)}
    with (
        quiet(),
        tempfile.TemporaryDirectory() as scratch,
        Worker(kind, options, Path(scratch) / "log.txt", environment=here) as worker,
    ):
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        from awqbench.suites.lm import WorkerLM
        from awqbench.suites.task_loading import load_tasks

        tasks = load_tasks(asked.tasks.split(","), str(Path(__file__).with_name("tasks")), None, 0)
        chosen = {name: range(min(asked.items, len(task.eval_docs))) for name, task in tasks.items()}
        theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=asked.batch_size)
        counted = Counting(theirs.model)
        ours = WorkerLM(worker, load_tokenizer(folder))

        def run(lm: Any) -> Callable[[], Any]:
            return lambda: evaluate(
                lm=lm, task_dict={"tasks": tasks}, samples=chosen, bootstrap_iters=0, log_samples=True
            )

        contestants: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, int]]]] = {
            "HFLM": (run(theirs), counted.figures),
            "awqbench": (run(ours), worker.memory),
        }
        warm = {name: call() for name, (call, _) in contestants.items()}
        worst, differ = 0.0, 0
        for name in tasks:
            samples = [sorted(warm[who]["samples"][name], key=lambda s: s["doc_id"]) for who in contestants]
            for one, other in zip(*samples, strict=True):
                for (a, *_), (b, *_) in zip(one["resps"], other["resps"], strict=True):
                    if isinstance(a, str):
                        differ += a != b
                    else:
                        worst = max(worst, abs(a[0] - b[0]))
        assert worst < 1e-3, f"log-likelihoods differ by {worst}"
        seconds = run_in_turns(contestants, asked.rounds, worker.pid)
    found: dict[str, Any] = {"machine": hardware(), "asked": {k: str(v) for k, v in vars(asked).items()}}
    found |= {"seconds": seconds, "largest_difference": worst, "texts_that_differ": differ}
    print(
        f"{', '.join(f'{len(items)} items of {name}' for name, items in chosen.items())}; batches of {asked.batch_size}"
    )
    print(f"largest difference of a log-likelihood: {worst:.1e}; generated texts that differ: {differ}")
    positions = {who: int(own["positions"][0]) for who, own in seconds.items()}
    print("positions of forward calls: " + ", ".join(f"{who} {count:,}" for who, count in positions.items()))
    for series in SERIES:
        one, other = (seconds[who][series] for who in contestants)
        middle, low, high = ratio(other, one)
        found[series] = {"ratio": middle, "low": low, "high": high}
        print(
            f"  {series:<17}  HFLM {np.median(one):.2f} s, awqbench {np.median(other):.2f} s: "
            f"{middle:.3f} times [{low:.3f}, {high:.3f}]"
        )
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
