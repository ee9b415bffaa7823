"""A/A on real runs: the unquantized model against itself, in other batches, threads, texts and item samples.

Each run measures the reference and the same model again at several batch sizes; every pair of the two is then judged
by itself, as if it were the only candidate, by each policy. Results: OUT/aa.json and OUT/aa.csv. What is measured
already is kept.

  aa.py --out runs/aa
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awqbench
from awqbench.compare import compare_tables
from awqbench.gate import judge, policy_hash
from awqbench.record.environment import hardware
from awqbench.record.files import write_atomic
from awqbench.record.reader import Run
from awqbench.resources import content
from awqbench.score import cells_of
from awqbench.spec import RunSpec, load_gates, parse_spec

BATCHES = (1, 2, 3, 5, 8, 16, 64)
# Seed, threads, and the slice of the text: every run asks other items.
RUNS = ((0, 1, "[:30%]"), (1, 2, "[30%:60%]"), (2, 1, "[60%:]"))


def spec_of_run(model: str, text: str, seed: int, threads: int, budget: dict[str, Any]) -> RunSpec:
    """The reference and the same model at each batch size; no gates, since each pair is judged by itself."""
    again = {f"again-batch-{size}": {"kind": "transformers", "batch_size": size} for size in budget["batches"]}
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
            "fairness": {"limit": budget["fairness"], **({"sets": budget["sets"]} if "sets" in budget else {})},
        },
    })  # fmt: skip


def judged(run: Run, policies: list[Path]) -> Iterator[dict[str, Any]]:
    """One row per candidate and policy: its verdict, what was undecided, and the largest differences seen."""
    cells = cells_of(run)
    for name in sorted({c.result.backend for c in cells if c.result.role == "candidate"}):
        pair = [c for c in cells if c.result.backend in ("reference", name)]
        comparison = compare_tables(pair, "reference", None)
        for policy in policies:
            gates = load_gates(policy)
            verdict = judge(gates, pair, comparison, "reference", policy_hash=policy_hash(gates))
            count = {v: sum(rule.verdict == v for rule in verdict.rules) for v in ("pass", "fail", "inconclusive")}
            flips = [row.flips for row in comparison.differences if row.flips and "acc_norm" not in row.metric]
            yield {
                "run": run.path.name,
                "candidate": name,
                "threads": run.manifest.spec.get("threads"),
                "policy": policy.stem,
                "overall": verdict.overall,
                **count,
                "undecided": sorted({r.rule for r in verdict.rules if r.verdict == "inconclusive"}),
                "why": sorted({r.reason for r in verdict.rules if r.verdict == "inconclusive"})[:3],
                "kl": max((r.candidate_value or 0) for r in comparison.differences if r.metric.endswith("/kl")),
                "perplexity change": max(
                    abs(r.delta or 0) for r in comparison.differences if r.metric.startswith("perplexity/")
                ),
                "flips": sum(f.correct_to_wrong + f.wrong_to_correct for f in flips),
                "other wrong answers": sum(f.wrong_to_wrong for f in flips),
                "items": sum(f.n for f in flips),
            }


def main() -> None:
    """Measure what is missing, judge all, write both files."""
    asked = _arguments()
    rows: list[dict[str, Any]] = []
    budget = {"batches": asked.batches, "window": 256, "windows": 4, "tasks": 60, "fairness": 60}
    for seed, threads, part in RUNS:
        spec = spec_of_run(asked.model, asked.text + part, seed, threads, budget)
        run = awqbench.run(spec, asked.out / f"seed-{seed}-threads-{threads}")
        rows += judged(run, asked.policies)
        print(f"{run.path}: {len(rows)} verdicts so far", file=sys.stderr)
        write_atomic(asked.out / "aa.json", json.dumps({"machine": hardware(), "rows": rows}, indent=2) + "\n")
    with (asked.out / "aa.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(json.dumps(summary(rows), indent=2))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Verdicts counted by policy, and the largest differences over all pairs."""
    verdicts: dict[str, dict[str, int]] = {}
    for row in rows:
        count = verdicts.setdefault(row["policy"], {"pass": 0, "fail": 0, "inconclusive": 0})
        count[row["overall"]] += 1
    pairs = {(row["run"], row["candidate"]): row for row in rows}
    largest = {key: max(row[key] for row in pairs.values()) for key in ("kl", "perplexity change")}
    total = {key: sum(row[key] for row in pairs.values()) for key in ("flips", "other wrong answers", "items")}
    failed = sum(row["fail"] for row in rows)
    return {"pairs": len(pairs), "failed rules": failed, "verdicts": verdicts, "largest": largest, "total": total}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    presets = content("suites") / "presets"
    parser.add_argument("--model", default="demo", help="a folder or a packaged name")
    parser.add_argument("--text", default="pydoc-topics")
    parser.add_argument("--out", type=Path, default=Path("runs") / "aa")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument(
        "--policies", type=Path, nargs="+", default=[presets / "default.toml", presets / "full.toml"],
        help="files with [[gates]]",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    main()
