"""Latency and memory: time to first token, inter-token gaps, decode throughput, load time, peaks and checkpoint size.

Every repeat generates exactly `new_tokens` greedily for a batch of equally long prompts, end of sequence ignored. The
prompts are random token ids, fresh for each repeat (so that no engine's prefix cache answers for it) and the same for
every backend. Figures are medians with bootstrap intervals; a tail percentile is given only where enough samples bear
it. The batch sizes take turns, so that a drift of the machine spreads over all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awqbench.backends.base import Timing
from awqbench.errors import InvalidMeasurement, UserError
from awqbench.record.schema import Metric
from awqbench.spec import LatencySpec
from awqbench.stats import median_interval
from awqbench.suites.bandwidth import mbu_metric, peak_bandwidth
from awqbench.suites.base import Context, Measurement, item_table
from awqbench.suites.footprint import footprint_metrics

LEVEL = 0.95
# A percentile needs about this many samples before it is more than the maximum by another name.
TAILS = {"p90": (90, 10), "p95": (95, 20), "p99": (99, 100)}

Samples = NDArray[np.float64]  # [repeats, samples in a repeat]


def measure(context: Context) -> Measurement:
    """Time one backend.

    Raises UserError when prompt and continuation exceed the model's positions, InvalidMeasurement for times that can't
    be true.
    """
    context.require("time")
    suite: LatencySpec = context.suite
    _check_length(suite, context.worker.description.get("max_positions"))
    vocabulary = _plain_ids(context)
    repeats = context.budget(suite.repeats)
    total = (suite.warmup + repeats) * len(suite.batch_sizes)
    timings: dict[int, list[Timing]] = {batch: [] for batch in suite.batch_sizes}
    done = 0
    for turn in range(-suite.warmup, repeats):
        for batch in timings:
            seed = (context.spec.seed, batch, turn + suite.warmup, *([suite.draw] if suite.draw > 1 else []))
            ids = prompts(vocabulary, batch, suite.prompt_tokens, seed=seed)
            timing = context.worker.time(ids, suite.new_tokens)
            if turn >= 0:
                timings[batch].append(_checked(timing, suite.new_tokens, batch))
            done += 1
            context.progress(done, total)

    # The id names what was asked for, so that engines that compute in another type are still held side by side.
    asked = suite.dtype or context.spec.model.dtype
    dtype = str(context.worker.description.get("dtype", "unknown")).removeprefix("torch.")
    metrics: list[Metric] = []
    rows: list[dict[str, Any]] = []
    for batch, measured in timings.items():
        for name, samples in _series(measured, batch).items():
            metrics.append(_metric(name, samples, batch, suite, asked, dtype, context.spec.seed))
            rows += _rows(metrics[-1].id, samples, suite.prompt_tokens if name == "ttft" else suite.new_tokens - 1)
    # A step that is made for fewer sequences or positions gives way to another, which is then what was timed.
    notes = [
        f"at batch size {batch} tokens were decoded by {told[0]}"
        for batch, measured in timings.items()
        if (told := [timing.otherwise for timing in measured if timing.otherwise])
    ]
    memory = context.worker.memory()
    metrics += [*_bandwidth(context, metrics), *footprint_metrics(context, memory, asked, dtype)]
    return Measurement(metrics, item_table(rows), memory, notes)


def prompts(vocabulary: Sequence[int], batch: int, length: int, seed: Sequence[int]) -> list[list[int]]:
    """`batch` prompts of `length` ids drawn from `vocabulary`; the same for the same seed on any machine."""
    ids = np.asarray(vocabulary)[np.random.default_rng(seed).integers(0, len(vocabulary), (batch, length))]
    drawn: list[list[int]] = ids.tolist()
    return drawn


def summarize(samples: Samples, seed: int = 0) -> dict[str, Any]:
    """Median, its interval and the spread of samples [repeats, m].

    The interval is that of `awqbench.stats.median_interval` with repeats as clusters (the gaps of one repeat are not
    independent), None below two repeats. Tail percentiles are None below the counts of `TAILS`. `mad` is the median
    absolute deviation, unscaled.
    """
    pooled = samples.ravel()
    median = float(np.median(pooled))
    low = high = None
    if len(samples) > 1:
        repeats = np.repeat(np.arange(len(samples)), samples.shape[1])
        low, high = median_interval(pooled, repeats, LEVEL, seed)
    tails = {name: float(np.percentile(pooled, q)) if pooled.size >= n else None for name, (q, n) in TAILS.items()}
    mad = float(np.median(np.abs(pooled - median)))
    spread = {"mad": mad, "min": float(pooled.min()), "max": float(pooled.max()), "repeats": len(samples), **tails}
    return {"median": median, "low": low, "high": high, "spread": spread}


def _series(timings: Sequence[Timing], batch: int) -> dict[str, Samples]:
    """name -> samples [repeats, m]."""
    gaps = np.array([timing.gaps_s for timing in timings])
    return {
        "ttft": np.array([[timing.ttft_s] for timing in timings]),
        "itl": gaps,
        "tpot": gaps.mean(axis=1, keepdims=True),
        "decode-throughput": batch / gaps.mean(axis=1, keepdims=True),
    }


_PROTOCOLS = {
    "ttft": "seconds from the request to the first token of every sequence of the batch",
    "itl": "seconds between a token and the next, all gaps of all repeats pooled",
    "tpot": "seconds per output token after the first: (latency - time to first token) / (tokens - 1)",
    "decode-throughput": "output tokens after the first per second, all sequences of the batch together",
}


def _metric(name: str, samples: Samples, batch: int, suite: LatencySpec, asked: str, dtype: str, seed: int) -> Metric:
    shape = f"batch={batch},prompt={suite.prompt_tokens}" + ("" if name == "ttft" else f",new={suite.new_tokens}")
    found = summarize(samples, seed)
    sizes = {"batch": batch, "prompt_tokens": suite.prompt_tokens, "new_tokens": suite.new_tokens, "dtype": dtype}
    return Metric(
        id=f"latency/{name}@{shape}/{asked}",
        value=found["median"],
        unit="tokens/s" if name == "decode-throughput" else "s",
        n=samples.size,
        ci_low=found["low"],
        ci_high=found["high"],
        ci_level=LEVEL,
        protocol=f"{_PROTOCOLS[name]}; greedy, {suite.new_tokens} tokens, end of sequence ignored; median over "
        f"{len(samples)} repeats after {suite.warmup} warm-up, its interval from a bootstrap over repeats"
        + ("" if dtype in {asked, "unknown"} else f"; this engine computes in {dtype}"),
        higher_is_better=name == "decode-throughput",
        pairing="ratio-of-medians",
        detail={**sizes, **found["spread"]},
    )


def _bandwidth(context: Context, metrics: Sequence[Metric]) -> list[Metric]:
    """MBU by batch size on a GPU; nothing on a CPU, whose peak bandwidth nobody told us."""
    told = context.worker.description
    if not str(told.get("device", "")).startswith("cuda") or told.get("weight_bytes") is None:
        return []
    config = json.loads((context.model_dir / "config.json").read_text(encoding="utf-8"))
    one = peak_bandwidth()
    peak = one and one * told.get("tensor_parallel", 1)  # its GPUs read their shares at the same time
    tpots = [metric for metric in metrics if metric.id.startswith("latency/tpot@")]
    found = (mbu_metric(tpot, context.suite, config, told["weight_bytes"], peak) for tpot in tpots)
    return [metric for metric in found if metric]


def _rows(metric: str, samples: Samples, tokens: int) -> list[dict[str, Any]]:
    per_repeat = samples.shape[1]
    return [
        {
            "metric": metric,
            "item_id": f"repeat={r}" + (f",gap={i}" if per_repeat > 1 else ""),
            "cluster": f"repeat={r}",
            "score": float(samples[r, i]),
            "tokens": 1 if per_repeat > 1 else tokens,
        }
        for r in range(len(samples))
        for i in range(per_repeat)
    ]


def _check_length(suite: LatencySpec, positions: int | None) -> None:
    wanted = suite.prompt_tokens + suite.new_tokens
    if positions is not None and wanted > positions:
        raise UserError(
            f"prompt_tokens {suite.prompt_tokens} + new_tokens {suite.new_tokens} = {wanted} exceed the model's "
            f"{positions} positions (allowed: at most {positions} together)"
        )


def _plain_ids(context: Context) -> list[int]:
    """Ids of ordinary tokens: special and added ones could end, mask or restructure a prompt."""
    tokenizer = context.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    size = min(len(tokenizer), int(context.worker.description.get("vocab_size") or len(tokenizer)))
    return [i for i in range(size) if i not in special]


def _checked(timing: Timing, new_tokens: int, batch: int) -> Timing:
    if len(timing.gaps_s) != new_tokens - 1:
        raise InvalidMeasurement(
            f"the engine timed {len(timing.gaps_s) + 1} of {new_tokens} tokens at batch size {batch}: not comparable"
        )
    if not all(math.isfinite(s) and s > 0 for s in (timing.ttft_s, *timing.gaps_s)):
        raise InvalidMeasurement(f"a time at batch size {batch} is not a positive number of seconds")
    return timing
