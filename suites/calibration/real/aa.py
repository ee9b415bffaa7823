"""A/A on real runs: the unquantized model against itself, in other batches, threads, texts and item samples.

Each run measures the reference and the same model again at several batch sizes. Every two measurements of the same
items are then judged by each policy as if one were the reference and the other the only candidate; KL, which is
measured against a run's reference alone, is judged in its pairs. Results: OUT/aa.json and OUT/aa.csv. What is measured
already is kept.

  aa.py --out runs/aa
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

import awqbench
from awqbench.compare import compare_tables
from awqbench.compare.cell import Cell
from awqbench.gate import judge, policy_hash
from awqbench.policies import load_policy
from awqbench.record.environment import hardware
from awqbench.record.files import write_atomic
from awqbench.record.reader import Run
from awqbench.record.schema import Comparison
from awqbench.resources import content
from awqbench.score import cells_of
from awqbench.spec import RunSpec, parse_spec

# Seed, threads, the slice of the text and the batch sizes. Another seed and slice are other items.
RUNS = (
    (0, 1, "[:30%]", (1, 2, 3, 5, 8, 16, 64)),
    (1, 1, "[60%:]", (2, 5, 16)),
    (0, 2, "[:30%]", (1, 8)),
)
BUDGET = {"window": 256, "windows": 4, "tasks": 60, "fairness": 60}


def spec_of_run(
    model: str, text: str, seed: int, threads: int, batches: tuple[int, ...], budget: dict[str, Any]
) -> RunSpec:
    """The reference and the same model at each batch size; no gates, since each pair is judged by itself."""
    again = {f"again-batch-{size}": {"kind": "transformers", "batch_size": size} for size in batches}
    return parse_spec({
        "seed": seed,
        "threads": threads,
        "model": {"source": model},
        "noise_floor": {"enabled": False},
        "backends": {"reference": {"kind": "reference"}, **again},
        "suites": {
            "perplexity": {"text": text, "window": budget["window"], "windows": budget["windows"]},
            "divergence": {
                "text": text, "window": budget["window"] // 2, "windows": budget["windows"] // 2,
                "decode_window": 16, "decode_windows": 2,
            },
            "tasks": {"limit": budget["tasks"]},
            "fairness": {"limit": budget["fairness"]},
        },
    })  # fmt: skip


def judged(runs: Sequence[Run], policies: list[Path]) -> Iterator[dict[str, Any]]:
    """One row per pair and policy: its verdict, what was undecided, the differences seen. Runs share items."""
    members = {
        (run.manifest.spec["threads"], name): [c for c in cells_of(run) if c.result.backend == name]
        for run in runs
        for name in run.manifest.spec["backends"]
    }
    for one, other in combinations(members, 2):
        with_kl = one[0] == other[0] and one[1] == "reference"
        pair = [_as(c, "one", "reference") for c in members[one] if c.result.kind != "divergence"]
        pair += [_as(c, "other", "candidate") for c in members[other] if with_kl or c.result.kind != "divergence"]
        comparison = compare_tables(pair, "one", None)
        kinds = {cell.result.kind for cell in pair}
        for policy in policies:
            gates = [gate for gate in load_policy(policy).gates if gate.metric.split("/")[0] in kinds]
            verdict = judge(gates, pair, comparison, "one", policy_hash=policy_hash(gates))
            yield {
                "seed": runs[0].manifest.seed,
                "pair": " | ".join(f"{name}, {threads} threads" for threads, name in (one, other)),
                "policy": policy.stem,
                "overall": verdict.overall,
                **{v: sum(rule.verdict == v for rule in verdict.rules) for v in ("pass", "fail", "inconclusive")},
                "undecided": "; ".join(sorted({r.rule for r in verdict.rules if r.verdict == "inconclusive"})),
                "why": next((r.reason for r in verdict.rules if r.verdict == "inconclusive"), ""),
                **_differences(comparison),
                "largest nll difference": _nll(pair),
            }


def _nll(pair: Sequence[Cell]) -> float:
    """The largest difference of one item's negative log-likelihood, nats: what another order of summation does."""
    items = [
        pd.concat([c.items for c in pair if c.result.backend == name and len(c.items)]) for name in ("one", "other")
    ]
    both = items[0].merge(items[1], on=["metric", "item_id"])
    return float((both["nll_x"] - both["nll_y"]).abs().max())


def _as(cell: Cell, name: str, role: Literal["reference", "candidate"]) -> Cell:
    return replace(cell, result=cell.result.model_copy(update={"backend": name, "role": role}))


def _differences(comparison: Comparison) -> dict[str, Any]:
    """The largest KL and change of perplexity, and the answers that changed; acc_norm asks the same items again."""
    rows = comparison.differences
    flips = [row.flips for row in rows if row.flips and not row.metric.endswith("acc_norm")]
    kl = [row.candidate_value for row in rows if row.metric.endswith("/kl") and row.candidate_value is not None]
    return {
        "kl": max(kl, default=None),
        "perplexity change": max(abs(row.delta or 0.0) for row in rows if row.metric.startswith("perplexity/")),
        "flips": sum(f.correct_to_wrong + f.wrong_to_correct for f in flips),
        "other wrong answers": sum(f.wrong_to_wrong for f in flips),
        "items": sum(f.n for f in flips),
    }


def main() -> None:
    """Measure what is missing, judge all, write both files."""
    asked = _arguments()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two threads that spin on a busy machine stand still
    runs: dict[int, list[Run]] = {}
    for seed, threads, part, batches in RUNS:
        spec = spec_of_run(asked.model, asked.text + part, seed, threads, batches, BUDGET)
        run = awqbench.run(spec, asked.out / f"seed-{seed}-threads-{threads}")
        runs.setdefault(seed, []).append(run)
        print(f"{run.path}: measured", file=sys.stderr)
    rows = [row for same_items in runs.values() for row in judged(same_items, asked.policies)]
    result = {"machine": hardware(), "summary": summary(rows), "rows": rows}
    write_atomic(asked.out / "aa.json", json.dumps(result, indent=2) + "\n")
    with (asked.out / "aa.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(json.dumps(result["summary"], indent=2))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Verdicts counted by policy, rules that failed, and the largest differences over all pairs."""
    verdicts: dict[str, dict[str, int]] = {}
    for row in rows:
        count = verdicts.setdefault(row["policy"], {"pass": 0, "fail": 0, "inconclusive": 0})
        count[row["overall"]] += 1
    pairs = list({(row["seed"], row["pair"]): row for row in rows}.values())
    return {
        "pairs": len(pairs),
        "rules failed": sum(row["fail"] for row in rows),
        "verdicts": verdicts,
        "largest kl": max(row["kl"] for row in pairs if row["kl"] is not None),
        "largest perplexity change": max(row["perplexity change"] for row in pairs),
        "largest nll difference": max(row["largest nll difference"] for row in pairs),
        **{key: sum(row[key] for row in pairs) for key in ("flips", "other wrong answers", "items")},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    presets = content("suites") / "presets"
    parser.add_argument("--model", default="demo", help="a folder or a packaged name")
    parser.add_argument("--text", default="pydoc-topics")
    parser.add_argument("--out", type=Path, default=Path("runs") / "aa")
    parser.add_argument(
        "--policies", type=Path, nargs="+", default=[presets / "default.toml", presets / "full.toml", Path("strict")],
        help="files with [[gates]], or names of shipped policies",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    main()
