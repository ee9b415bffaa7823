"""Token perplexity as GPTQ and AWQ measure it: non-overlapping windows of a text that was tokenized once.

exp of the unweighted mean over windows of the window's mean negative log-likelihood; the first token of a window is
context only, the tail of the text is dropped. llm-awq (entry.py), AutoAWQ (eval_utils.py).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from awqbench.record.schema import Metric
from awqbench.spec import PerplexitySpec
from awqbench.suites.base import Context, Measurement, item_table
from awqbench.suites.windows import text_windows


def measure(context: Context) -> Measurement:
    """One metric, `perplexity/<text>@<window>`, with `+N` for the first N windows only.

    A row per window, whose score is its mean NLL in nats per token.
    """
    context.require("score")
    spec: PerplexitySpec = context.suite
    windows = text_windows(context, spec.text, spec.window, spec.windows)
    scored = context.worker.score(windows.ids, [1] * len(windows.ids), context.progress)
    losses = [item.nll / len(item.logprobs) for item in scored]
    name = f"perplexity/{windows.protocol(spec.window, spec.windows)}"
    value, low, high = perplexity(losses)
    rows = [
        {
            "metric": name, "item_id": f"window-{i:05d}", "cluster": f"window-{i:05d}", "score": loss, "nll": s.nll,
            "tokens": len(s.logprobs),
        }
        for i, loss, s in zip(windows.places, losses, scored, strict=True)
    ]  # fmt: skip
    metric = Metric(
        id=name,
        value=value,
        unit="perplexity",
        n=len(losses),
        ci_low=low,
        ci_high=high,
        higher_is_better=False,
        pairing="log-ratio",
        protocol=f"{len(losses)} non-overlapping windows of {spec.window} tokens ({spec.window - 1} predicted each), "
        "text tokenized once, tail dropped, float32 log-softmax, exp of the mean of window means (GPTQ/AWQ)",
        detail={"tokens_predicted": sum(len(s.logprobs) for s in scored), "mean_nll": float(np.mean(losses))},
    )
    return Measurement([metric], item_table(rows))


def perplexity(losses: list[float]) -> tuple[float, float | None, float | None]:
    """exp(mean) of window losses in nats, with a 95 % interval from Student's t over windows; none for one window."""
    mean = float(np.mean(losses))
    if len(losses) < 2:
        return math.exp(mean), None, None
    half = float(stats.t.ppf(0.975, len(losses) - 1) * np.std(losses, ddof=1) / math.sqrt(len(losses)))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)
