"""Power on a real model damaged on purpose: what is promised for each defect, and what samples of real items deliver.

Each damaged copy below COPIES (folders that damage.py wrote) is measured once, at full size, with the reference and
the same model again. Then clusters are drawn from the measured ones, with no more model time. OUT/power.json holds:

  tests   single tests at the n for which `required_n` promises 80 %, at half of it and at twice
  gates   the rules as shipped, Holm over the family included, at rising numbers of clusters

  power.py COPIES --out runs/power
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import awqbench
from awqbench.compare import compare_tables
from awqbench.compare.cell import Cell, find, stand_in
from awqbench.gate import judge, policy_hash
from awqbench.policies import load_policy
from awqbench.record.environment import hardware
from awqbench.record.files import write_atomic
from awqbench.resources import content
from awqbench.score import cells_of
from awqbench.spec import GateSpec, RunSpec, parse_spec
from awqbench.stats import clustered_mean, difference_in_differences, noninferiority, required_n

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from draws import Items, cells_on, families, paired, taken  # noqa: E402
from rules import Losses  # noqa: E402

ALPHA = 0.05
CHECKED = 3  # samples of each kind that the gate itself judges as well
# The metric of each suite by the end of its id, and the margin that the presets (for fairness, gate.toml) allow.
SHIPPED = {
    "perplexity": ("", math.log1p(0.05)),
    "divergence": ("prefill/kl", 0.1),
    "tasks": ("/acc", 0.03),
    "fairness": ("/accuracy", 0.03),
}
GROUP_MARGIN = 0.1  # of the full preset
# Whose rule on groups is applied: no group 10 points more than the others, or none shown to lose more at all.
POLICIES = {"full": content("suites") / "presets" / "full.toml", "strict": Path("strict")}
# Numbers of clusters drawn: windows of text, topics of tasks, questions of the fairness set.
SIZES = {"perplexity": (4, 8, 16, 32), "divergence": (4, 8, 16, 32), "tasks": (15, 30, 60, 120),
         "fairness": (30, 60, 120, 240, 480)}  # fmt: skip


def spec_of_run(model: str, copies: dict[str, Path], text: str, budget: dict[str, Any], lean: bool = False) -> RunSpec:
    """The reference and every copy as transformers loads it; `lean`: the suites that see a copy's kind of defect.

    A copy harmed for one group alone is asked the fairness set and, to show that the average is spared, perplexity; the
    others are measured on all but the fairness set.
    """
    damaged = {name: {"kind": "transformers", "checkpoint": str(path)} for name, path in copies.items()}
    grouped = [name for name, path in copies.items() if group_of(path)]
    others = [name for name in copies if name not in grouped]
    suites: dict[str, dict[str, Any]] = {
        "perplexity": {"text": text, "window": budget["window"], "windows": budget["windows"]},
        "divergence": {
            "text": text, "window": budget["window"] // 2, "windows": budget["windows"] // 2,
            "decode_window": 16, "decode_windows": budget["windows"] // 4, "backends": others if lean else None,
        },
        "tasks": {"backends": others if lean else None},
        "fairness": {"sets": [budget["set"]], "backends": grouped if lean else None},
    }  # fmt: skip
    return parse_spec({
        "threads": 1,
        "model": {"source": model},
        "noise_floor": {"enabled": False},
        "backends": {"reference": {"kind": "reference"}, **damaged},
        "suites": {name: suites[name] for name in budget["suites"]},
    })  # fmt: skip


def promised(effect: float, sd: float, n: float, alpha: float = ALPHA) -> float:
    """Power of a one-sided test of 'at most 0' at `n` independent clusters: the inverse of `awqbench.stats.mde`."""
    return float(stats.norm.sf(stats.norm.isf(alpha) - effect * math.sqrt(n) / sd)) if sd > 0 else float(effect > 0)


def single_tests(
    name: str, what: str, items: Items, margin: float, draws: int, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """One test of 'the loss is at most the margin' at the n that promises 80 %, at half of it and at twice."""
    clusters, width = items.loss.shape
    codes = np.repeat(np.arange(clusters), width)
    if items.member is None:
        bounds = clustered_mean(items.loss.ravel(), codes)
        effect, se = bounds.estimate, bounds.se
    else:
        whole = difference_in_differences(items.loss.ravel(), items.member.ravel(), codes)
        effect, se = whole.estimate, whole.se
    sd = se * math.sqrt(clusters)
    row = {"copy": name, "test": what, "effect": effect, "sd of a cluster": sd, "margin": margin, "clusters": clusters}
    if effect <= margin or sd == 0:
        yield {**row, "note": "the true loss is within the margin: there is nothing to detect"}
        return
    needed = required_n(effect - margin, sd=sd, alpha=ALPHA, sided="one")
    for n in dict.fromkeys(max(4, round(needed * factor)) for factor in (0.5, 1, 2)):
        rng = np.random.default_rng([seed, n])
        found = sum(_detects(*items.drawn(n, rng), items, margin) for _ in range(draws))
        yield {
            **row,
            "required n": needed,
            "n": n,
            "promised": promised(effect - margin, sd, n),
            **_share(found, draws),
        }


def _detects(loss: Any, member: Any, codes: Any, items: Items, margin: float) -> bool:
    if items.member is None:
        return noninferiority(loss, margin, ALPHA, clusters=codes, binary=items.binary).verdict == "fail"
    # A two-sided 90 % interval has the one-sided 95 % bound.
    return difference_in_differences(loss, member, codes, 1 - 2 * ALPHA, binary=items.binary).low > margin


def rule_draws(
    name: str, what: str, items: Items, margin: float, sizes: Sequence[int], draws: int
) -> Iterator[dict[str, Any]]:
    """How often one rule alone fails, passes or stays undecided on n clusters."""
    for n in sizes:
        rng, seen = np.random.default_rng([1, n]), Counter[str]()
        for _ in range(draws):
            loss, _, codes = items.drawn(n, rng)
            seen[noninferiority(loss, margin, ALPHA, clusters=codes, binary=items.binary).verdict] += 1
        yield {
            "copy": name,
            "rule": f"{what}, margin {margin:.3g}",
            "group": None,
            "n": n,
            **_counts(seen),
            "draws": draws,
        }


def group_draws(
    name: str, gates: Sequence[GateSpec], pair: Sequence[Cell], metric: str, sizes: Sequence[int], draws: int
) -> Iterator[dict[str, Any]]:
    """The same for the average and every group, Holm over all; and how often a group fails while the average passes."""
    losses, pools = Losses(*pair, metric), families(pair[1])
    for n in sizes:
        rng = np.random.default_rng([2, n])
        seen: dict[tuple[str, str], Counter[str]] = {}
        hidden = 0
        for draw in range(draws):
            clusters = taken(pools, n, rng)
            said = losses.verdicts(clusters, gates)
            if draw < CHECKED:
                assert said == _judged(gates, cells_on(pair, clusters)), "the gate itself says otherwise"
            for rule, verdict in said.items():
                seen.setdefault(rule, Counter())[verdict] += 1
            average = all(verdict == "pass" for (_, group), verdict in said.items() if not group)
            hidden += average and any(verdict == "fail" for (_, group), verdict in said.items() if group)
        for (rule, group), count in seen.items():
            yield {"copy": name, "rule": rule, "group": group or None, "n": n, **_counts(count), "draws": draws}
        what = "a group fails while the average passes"
        yield {"copy": name, "rule": what, "group": None, "n": n, "fail": hidden, "draws": draws}


def _counts(seen: Counter[str]) -> dict[str, int]:
    return {verdict: seen[verdict] for verdict in ("fail", "pass", "inconclusive")}


def _judged(gates: Sequence[GateSpec], pair: list[Cell]) -> dict[tuple[str, str], str]:
    comparison = compare_tables([], "reference", None)
    verdict = judge(gates, pair, comparison, "reference", policy_hash=policy_hash(gates))
    return {
        (r.rule, f"{r.attribute}={r.group}" if r.group else ""): r.verdict
        for r in verdict.rules
        if r.lower is not None  # not one of the groups that are too small
    }


def _share(found: int, draws: int) -> dict[str, Any]:
    interval = stats.binomtest(found, draws).proportion_ci()
    return {"delivered": found / draws, "low": float(interval.low), "high": float(interval.high), "draws": draws}


def group_of(copy: Path) -> tuple[str, str] | None:
    """The attribute and group that a copy was damaged for."""
    record = json.loads((copy / "damage.json").read_text(encoding="utf-8"))
    return (record["attribute"], record["group"]) if record["defect"] == "group" else None


def judged_as(metric: str, items: Items) -> Iterator[tuple[str, Items]]:
    """A distance's windows as a gate takes neighbours of one text, and as it takes those from all along it."""
    if items.windows:
        yield f"{metric}, neighbouring windows", items
        yield f"{metric}, windows from all along", replace(items, windows=False)
    else:
        yield metric, items


def study(
    name: str, group: tuple[str, str] | None, cells: Sequence[Cell], asked: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every metric of a copy against 0 and against its shipped margin, and the damaged group's difference."""
    for suite, (end, margin) in SHIPPED.items():
        candidate = find(cells, name, suite)
        reference = find(cells, "reference", suite) or stand_in(cells, "reference", suite)
        if candidate is None or reference is None:
            continue
        metric = next(m.id for m in candidate.result.metrics if m.id.endswith(end))
        items = paired(reference, candidate, metric)
        for what, judged in judged_as(metric, items):
            for limit in (0.0, margin) if suite != "divergence" else (margin,):
                yield from (("tests", row) for row in single_tests(name, what, judged, limit, asked.draws))
            if suite != "fairness":
                found = rule_draws(name, what, judged, margin, SIZES[suite], asked.draws)
                yield from (("gates", row) for row in found)
        if suite == "fairness" and group:
            what, items = f"difference of {group[0]}={group[1]}", paired(reference, candidate, metric, group)
            for limit in (0.0, GROUP_MARGIN):
                yield from (("tests", row) for row in single_tests(name, what, items, limit, asked.draws))
            average = GateSpec(metric="fairness/*/accuracy", margin=margin)
            for policy, path in POLICIES.items():
                groups = [
                    gate.model_copy(update={"name": None})
                    for gate in load_policy(path).gates
                    if gate.attribute == "*" and gate.metric == average.metric
                ]
                pair, sizes = [reference, candidate], asked.questions
                for row in group_draws(name, [average, *groups], pair, metric, sizes, asked.draws):
                    yield "gates", {**row, "policy": policy}


def main() -> None:
    """Measure what is missing, draw, write the tables."""
    asked = _arguments()
    copies = {path.parent.name: path.parent for path in sorted(asked.copies.glob("*/damage.json"))}
    budget = {"window": 256, "windows": asked.windows, "set": asked.set, "suites": asked.suites}
    spec = spec_of_run(asked.model, copies, asked.text, budget, asked.lean)
    run = awqbench.run(spec, asked.out / "run")
    cells = cells_of(run)
    result: dict[str, Any] = {"machine": hardware(), "tests": [], "gates": []}
    for name, path in copies.items():
        for table, row in study(name, group_of(path), cells, asked):
            result[table].append(row)
        write_atomic(asked.out / "power.json", json.dumps(result, indent=2) + "\n")
        print(f"{name}: done", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("copies", type=Path, help="a folder of folders that damage.py wrote")
    parser.add_argument("--model", default="demo", help="what they are copies of")
    parser.add_argument("--text", default="pydoc-topics")
    parser.add_argument("--windows", type=int, default=32, help="of 256 tokens, for perplexity; half as many for KL")
    parser.add_argument("--set", default="counterfactual", help="the fairness set that the group's tokens come from")
    parser.add_argument("--questions", type=int, nargs="+", default=SIZES["fairness"], help="drawn of the fairness set")
    parser.add_argument("--suites", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--lean", action="store_true", help="measure only the suites that see a copy's kind of defect")
    parser.add_argument("--out", type=Path, default=Path("runs") / "power")
    parser.add_argument("--draws", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
