r"""What a divergence costs beside the model's own time, and how small one can be: the floor of the reference itself.

    OMP_NUM_THREADS=1 python suites/micro/bench_divergence.py --model demo --text wikitext2-raw-test --json out.json

One window is predicted twice as a whole and once a token at a time through the KV cache. Times are processor time of
this process, which has one thread: the forward passes, and the tables of all divergences, medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from awqbench.backends.base import FloatArray
from awqbench.backends.registry import create, kind
from awqbench.record.environment import hardware
from awqbench.sources.models import load_tokenizer, resolve_model
from awqbench.sources.texts import resolve_text
from awqbench.suites.distances import divergences
from awqbench.suites.likelihood import encode


def plain_kl(p: FloatArray, q: FloatArray) -> np.ndarray:
    """sum p (log p - log q) of each position, without the sum that takes away what rounded masses leave."""
    return (np.exp(p) * (p - q)).sum(axis=1, dtype=np.float64)


def floor(record: FloatArray, decoded: FloatArray) -> dict[str, Any]:
    """Divergences of the decode path from the prefill's record, with and without the masses' correction."""
    found = divergences(record, decoded).values
    plain = plain_kl(record, decoded)
    return {
        "positions": len(record),
        "kl": {"mean": float(found["kl"].mean()), "max": float(found["kl"].max())},
        "kl, masses uncorrected": {"mean size": float(np.abs(plain).mean()), "max": float(np.abs(plain).max())},
        "largest error of a mass": float(np.abs(np.exp(record).sum(axis=1, dtype=np.float64) - 1).max()),
        "total variation": {"mean": float(found["total-variation"].mean())},
        "disagreements": int(found["top1-disagreement"].sum()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--text", default="wikitext2-raw-test")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    folder = resolve_model(asked.model).path
    ids = encode(load_tokenizer(folder), resolve_text(asked.text).content[: 20 * asked.window])[: asked.window]
    engine = create(kind("reference").target)
    engine.load({
        "model_dir": str(folder), "weights": str(folder), "dtype": "float32", "device": "cpu", "threads": 1,
        "batch_size": None,
    })  # fmt: skip

    def timed(count: int, call: Any) -> tuple[float, Any]:
        begin = time.process_time()
        result = call()
        return 1000 * (time.process_time() - begin) / count, result

    def predicted(path: Any) -> FloatArray:
        return np.concatenate(list(engine.logprobs(ids, 1, path)))

    record = predicted("prefill")
    decoded = predicted("decode")
    passes, tables = [], []
    for _ in range(asked.rounds):
        ms, again = timed(len(ids), lambda: predicted("prefill"))
        passes.append(ms)
        assert np.array_equal(record, again), "the same pass gave other bytes"
        tables.append(timed(len(record), lambda: divergences(record, decoded, np.asarray(ids[1:])))[0])
    assert all((values == 0).all() for values in divergences(record, record).values.values())
    found = {
        "machine": hardware(),
        "vocabulary": record.shape[1],
        "processor_ms": {
            "forward, a token of a window": float(np.median(passes)),
            "divergences, a position": float(np.median(tables)),
        },
        "the same pass again": "the same bytes",
        "decode path against prefill record": floor(record, decoded),
    }
    print(json.dumps(found, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
