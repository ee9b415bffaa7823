"""Do the windows of one text hang together? Losses, paired differences and distances of consecutive windows.

The reference and its 4-bit copies (AWQ, plain rounding) are measured on windows of a text. For each series, with 1, 4
and 8 windows added up to one: autocorrelations, beside what 95 % of 2,000 random orders of the same windows give, and
the variance of the mean as batch means show it over that of independent windows. A ratio of 2 makes a bound at 5 % one
at 12 %. Results: OUT/windows.json, and a table. What is measured already is kept.

  windows.py --out runs/windows
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import awqbench
from awqbench.record.environment import hardware
from awqbench.record.files import write_atomic
from awqbench.record.reader import Run
from awqbench.score import cells_of
from awqbench.spec import RunSpec, parse_spec
from awqbench.stats import clustered_mean
from awqbench.stats.batches import batches
from awqbench.stats.student import t_quantile, t_tail

LAGS = tuple(range(1, 21))  # in windows.json; of these the table shows the first
SHOWN = 6
DRAWS = 2000
BATCHES = 20  # whose means show the variance: each long beside the correlations, and enough of them to be sure to 1/3
Floats = npt.NDArray[np.float64]


def spec_of_run(model: str, text: str, window: int, windows: int, spread: bool) -> RunSpec:
    """The reference's own losses, and the candidates' distances and changes on the same windows."""
    budget: dict[str, Any] = {"text": text, "window": window, "windows": windows, "spread": spread}
    return parse_spec({
        "threads": 1,
        "model": {"source": model},
        "quantize": {
            "bits": 4, "group_size": 64, "calibration": "gensim-wikipedia[:50%]", "samples": 8, "seq_len": 128
        },
        "noise_floor": {"enabled": False},
        "backends": {name: {"kind": name} for name in ("reference", "awq", "rtn")},
        "suites": {
            "perplexity": {**budget, "backends": []},
            "divergence": {**budget, "decode_windows": 0},
        },
    })  # fmt: skip


def series(run: Run) -> Iterator[tuple[str, Floats]]:
    """What is measured of each window, in the order of the text."""
    for cell in cells_of(run):
        for metric in cell.result.metrics:
            what = metric.id.split("/")[-1]
            if cell.result.kind == "perplexity" or what in ("log-ppl-ratio", "kl", "top1-disagreement"):
                name = "loss" if cell.result.kind == "perplexity" else what
                yield f"{name}, {cell.result.backend}", cell.rows(metric.id)["score"].to_numpy(np.float64)


def autocorrelations(values: Floats) -> list[float]:
    """sum (x_i - m)(x_(i+k) - m) / sum (x_i - m)^2 at each lag k of `LAGS`; values [n]."""
    centred = values - values.mean()
    return [float(centred[:-lag] @ centred[lag:] / (centred @ centred)) for lag in LAGS]


def described(values: Floats) -> dict[str, Any]:
    """One series: its size, its autocorrelations with those of random orders, its variance ratios.

    `ratio`: of `BATCHES` batch means (half as many as there are windows, if fewer), with the 95 % interval that order
    alone gives; `shipped`: of the batches that the suites take as clusters. `level`: what a one-sided bound at 5 % is.
    """
    rng = np.random.default_rng(0)
    orders = [rng.permutation(values) for _ in range(DRAWS)]
    by_chance = np.quantile([autocorrelations(order) for order in orders], [0.025, 0.975], axis=0)
    count = min(BATCHES, values.size // 2)
    codes = np.arange(values.size) * count // values.size
    ratio = _ratio(values, codes)
    return {
        "windows": int(values.size),
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)),
        "autocorrelations": autocorrelations(values),
        "by chance": by_chance.tolist(),
        "batches": count,
        "ratio": ratio,
        "ratio by chance": np.quantile([_ratio(order, codes) for order in orders], [0.025, 0.975]).tolist(),
        "shipped": _ratio(values, batches(values.size)),
        "level": t_tail(t_quantile(0.05) / math.sqrt(ratio)),
    }


def _ratio(values: Floats, codes: npt.NDArray[np.intp]) -> float:
    return (clustered_mean(values, codes).se / clustered_mean(values, np.arange(values.size)).se) ** 2


def table(rows: list[dict[str, Any]]) -> str:
    """A row per series and size; correlations in bold beyond what 95 % of random orders give."""
    lags = " | ".join(f"lag {lag}" for lag in LAGS[:SHOWN])
    lines = [
        f"| what | windows of | n | {lags} | variance ratio | 5 % is |",
        "|---" * (5 + SHOWN) + "|",
    ]
    for row in rows:
        found = [
            f"**{value:+.2f}**" if not low <= value <= high else f"{value:+.2f}"
            for value, low, high in zip(row["autocorrelations"][:SHOWN], *row["by chance"], strict=False)
        ]
        low, high = row["ratio by chance"]
        ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
        cells = [row["what"], str(row["tokens"]), str(row["windows"]), *found, ratio, f"{100 * row['level']:.0f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="a folder or a packaged name")
    parser.add_argument("--text", default="wikitext2-raw-test")
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--spread", action="store_true", help="windows from all along the text, not its first ones")
    parser.add_argument("--out", type=Path, default=Path("runs") / "windows")
    asked = parser.parse_args()
    run = awqbench.run(spec_of_run(asked.model, asked.text, asked.window, asked.windows, asked.spread), asked.out)
    rows = []
    for what, values in series(run):
        for added in (1, 4, 8):
            whole = values[: values.size // added * added].reshape(-1, added).mean(axis=1)
            rows.append({"what": what, "tokens": asked.window * added, **described(whole)})
    write_atomic(asked.out / "windows.json", json.dumps({"machine": hardware(), "rows": rows}, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
