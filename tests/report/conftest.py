"""A run directory of invented figures, for tests of the report alone: nothing in it was measured.

Cells are invented; the comparison and the verdict are computed from them as in a real run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from awqbench.record.files import write_atomic, write_model
from awqbench.record.reader import Run, load_run
from awqbench.record.schema import CellResult, Manifest, Metric, TelemetrySummary
from awqbench.report import render
from awqbench.score import compare_run, judge_run
from awqbench.suites.base import item_table

BACKENDS = {"reference": "reference", "awq": "candidate", "rtn": "control", "reference-again": "noise"}
HARM = {"reference": 0.0, "awq": 1.0, "rtn": 2.0, "reference-again": 0.01}
SPEC: dict[str, Any] = {
    "version": 1,
    "backends": {"reference": {"kind": "reference"}, "awq": {"kind": "awq"}, "rtn": {"kind": "rtn"}},
    "suites": {name: {"kind": name} for name in ("perplexity", "divergence", "tasks", "fairness", "latency")},
    "gates": [
        {"metric": "perplexity/*", "margin": 0.05, "unit": "relative"},
        {"metric": "divergence/*/prefill/kl", "margin": 0.2},
        {"metric": "tasks/*/acc", "margin": 0.02},
        {"metric": "fairness/*", "margin": 0.03, "attribute": "origin"},
    ],
}
Row = dict[str, Any]
WriteRun = Callable[..., Path]


@pytest.fixture(scope="session")
def write_run() -> WriteRun:
    """Writes a run: write_run(folder, model=..., answer=..., gpu=...)."""
    return _write_run


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory that no test may change."""
    return _write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture
def run(run_dir: Path) -> Run:
    """The run in memory, free to be changed."""
    return load_run(run_dir)


@pytest.fixture(scope="session")
def rendered(run_dir: Path) -> dict[str, str]:
    """The four outputs by file name."""
    return {path.name: path.read_text(encoding="utf-8") for path in render(run_dir)}


def _write_run(root: Path, *, model: str = "synthetic-135M", answer: str = "B", gpu: bool = False) -> Path:
    write_model(root / "manifest.json", _manifest(model))
    for backend in BACKENDS:
        for kind, measure in _SUITES.items():
            if (backend, kind) == ("reference", "divergence"):
                continue
            _write_cell(root, backend, kind, measure(HARM[backend], answer), gpu)
    for backend in ("awq", "rtn"):
        write_atomic(root / "checkpoints" / backend / "quantize.json", json.dumps(_quantize_json(backend)))
    made = load_run(root)
    compare_run(made)
    judge_run(made)
    return root


def _manifest(model: str) -> Manifest:
    return Manifest(
        awqbench_version="0.1.0",
        created="2025-01-02T03:04:05+00:00",
        finished="2025-01-02T03:14:05+00:00",
        command=["awqbench", "run", "bench.toml", "--out", "runs/a b"],
        spec=SPEC,
        spec_hash="5" * 64,
        policy_hash="9" * 64,
        model={"source": model, "label": model, "hash": "a" * 64, "num_hidden_layers": 30},
        data={"synthetic-text": "d" * 64},
        packages={"python": "3.11.0"},
        hardware={"cpu": "Synthetic CPU", "cores_physical": 2, "gpus": [], "cpu_flags": ["avx2", "fma"]},
        seed=7,
    )


def _write_cell(root: Path, backend: str, kind: str, measured: tuple[list[Metric], list[Row]], gpu: bool) -> None:
    metrics, rows = measured
    failed = {"rtn": ("failed", "out of memory at batch size 4"), "reference-again": ("not_applicable", "no items")}
    status, reason = failed.get(backend, ("ok", None)) if kind == "latency" else ("ok", None)
    ok = status == "ok"
    result = CellResult(
        backend=backend, suite=kind, kind=kind, role=BACKENDS[backend], key="k", status=status, reason=reason,
        metrics=metrics if ok else [], seconds={"load": 1.2, "total": 31.7}, memory={"host_peak": 900_000_000},
        telemetry=_summary(gpu) if ok else None,
    )  # fmt: skip
    folder = root / "cells" / backend / kind
    write_model(folder / "result.json", result)
    item_table(rows if ok else []).to_parquet(folder / "items.parquet")
    if ok:
        _telemetry(gpu).to_parquet(folder / "telemetry.parquet")


def _perplexity(harm: float, answer: str) -> tuple[list[Metric], list[Row]]:
    id = "perplexity/synthetic-text@1024"
    losses = [3 + 0.1 * math.sin(i) + harm * (0.085 + 0.004 * math.cos(i)) for i in range(16)]
    rows = [_row(id, f"window-{i:02d}", loss) for i, loss in enumerate(losses)]
    value = math.exp(np.mean(losses))
    return [_metric(id, value, "perplexity", 16, higher_is_better=False, pairing="log-ratio")], rows


def _divergence(harm: float, answer: str) -> tuple[list[Metric], list[Row]]:
    metrics, rows = [], []
    for path, window, windows in (("prefill", 512, 4), ("decode", 64, 3)):
        for what, unit, level in (("kl", "nats per token", 0.11), ("top1-disagreement", "share of positions", 0.08)):
            id = f"divergence/synthetic-text@{window}/{path}/{what}"
            scores = [harm * level * (1 + 0.05 * math.sin(i)) for i in range(windows)]
            rows += [_row(id, f"{path}-{i}", score) for i, score in enumerate(scores)]
            mean = float(np.mean(scores))
            tail = {"p50": mean / 3, "p90": 2 * mean, "p99": 9 * mean, "p99.9": 20 * mean, "max": 31 * mean}
            detail = {"positions": 2044, **(tail if what == "kl" else {"max": 1.0})}
            metrics.append(
                _metric(id, mean, unit, windows, higher_is_better=False, pairing="to-reference", detail=detail)
            )
        banded, of_bands = _by_frequency(f"divergence/synthetic-text@{window}/{path}/kl-by-frequency", harm, windows)
        metrics.append(banded)
        rows += of_bands
    return metrics, rows


def _by_frequency(id: str, harm: float, windows: int) -> tuple[Metric, list[Row]]:
    """Rare tokens diverge three times as far as frequent ones."""
    levels = {"frequent": 0.08, "medium": 0.12, "rare": 0.24}
    rows = [
        {**_row(id, f"{i}/{band}", harm * level * (1 + 0.05 * math.sin(i + level))), "cluster": f"window-{i}",
         "group_frequency": band}
        for i in range(windows) for band, level in levels.items()
    ]  # fmt: skip
    table = [
        {"band": band, "tokens": 900, "share": 0.4, "kl": harm * level, "low": harm * level * 0.9,
         "high": harm * level * 1.1, "log-ppl-ratio": harm * level / 2, "top1-disagreement": harm * level / 3}
        for band, level in levels.items()
    ]  # fmt: skip
    mean = float(np.mean([row["score"] for row in rows]))
    made = _metric(
        id, mean, "nats per token", len(rows), higher_is_better=False, pairing="to-reference",
        detail={"attribute": "frequency", "bands": table},
    )  # fmt: skip
    return made.model_copy(update={"protocol": "synthetic; bands: of the token's type in the text"}), rows


def _tasks(harm: float, answer: str) -> tuple[list[Metric], list[Row]]:
    id = "tasks/synthetic_task/acc"
    rows = [_answer(id, i, i % 10 < 6, harm >= 1 and (i % 40 == 5 or i == 9), answer) for i in range(160)]
    return [_accuracy(id, rows)], rows


def _fairness(harm: float, answer: str) -> tuple[list[Metric], list[Row]]:
    """South loses every second right answer; the islands have too few items to be judged."""
    id = "fairness/synthetic_set/accuracy"
    rows = []
    for i in range(248):
        origin = ["north", "south", "east"][i % 3] if i < 240 else "islands"
        row = _answer(id, i, (i // 3) % 10 < 8, harm >= 1 and origin == "south" and i % 2 == 0, answer)
        rows.append({**row, "group_age": "young" if i % 2 else "old", "group_origin": origin})
    return [_accuracy(id, rows)], rows


def _latency(harm: float, answer: str) -> tuple[list[Metric], list[Row]]:
    metrics, rows = [], []
    for batch in (1, 4):
        for name, value, unit in (("ttft", 0.21 * batch, "s"), ("decode-throughput", 30.0 * batch, "tokens/s")):
            id = f"latency/{name}@batch={batch},prompt=128/float32"
            amount, detail = value * (1 + 0.3 * harm), {"p90": value * 1.1, "p99": None}
            better = unit != "s"
            metrics.append(
                _metric(id, amount, unit, 5, higher_is_better=better, pairing="ratio-of-medians", detail=detail)
            )
            rows += [_row(id, f"repeat={i}", amount * (1 + 0.01 * i)) for i in range(-2, 3)]
    size = _metric("size/checkpoint", 2.69e8 / (1 + harm), "bytes", 1, higher_is_better=False, pairing="none")
    return [*metrics, size.model_copy(update={"ci_low": None, "ci_high": None})], rows


_SUITES = {
    "perplexity": _perplexity,
    "divergence": _divergence,
    "tasks": _tasks,
    "fairness": _fairness,
    "latency": _latency,
}


def _metric(id: str, value: float, unit: str, n: int, **more: Any) -> Metric:
    ends = {"ci_low": value * 0.95, "ci_high": value * 1.05}
    return Metric(id=id, value=value, unit=unit, n=n, protocol=f"synthetic protocol of {id}", **ends, **more)


def _accuracy(id: str, rows: list[Row]) -> Metric:
    return _metric(id, float(np.mean([row["score"] for row in rows])), "share", len(rows), higher_is_better=True)


def _row(id: str, item: str, score: float) -> Row:
    return {"metric": id, "item_id": item, "cluster": item, "score": score, "tokens": 100}


def _answer(id: str, i: int, right: bool, flipped: bool, answer: str) -> Row:
    correct = right != flipped
    return {
        **_row(id, f"{id}/{i:04d}", float(correct)), "cluster": f"c{i // 4}", "correct": correct, "gold": "A",
        "prediction": "A" if correct else answer,
    }  # fmt: skip


def _summary(gpu: bool) -> TelemetrySummary:
    return TelemetrySummary(
        samples=40, interval_s=0.5, duration_s=20.0, sampler_cpu_s=0.05, sampler_cpu_share=0.0025,
        gpus=["Synthetic GPU"] if gpu else [], gpu_note=None if gpu else "no GPU: the NVML library was not found",
        throttled=True if gpu else None, energy_joules=4200.0 if gpu else None,
    )  # fmt: skip


def _telemetry(gpu: bool) -> pd.DataFrame:
    time = np.arange(40) * 0.5
    frame = pd.DataFrame({"time_s": time, "host_cpu_percent": 185 + 10 * np.sin(time)})
    frame["host_rss_bytes"] = 7e8 + 1e8 * np.tanh(time)
    frame["host_available_bytes"] = 6e9
    levels = {"power_w": 300.0, "util_percent": 90.0, "memory_used_bytes": 2e10, "temperature_c": 60.0}
    for name, level in levels.items() if gpu else ():
        frame[f"gpu0_{name}"] = level * (1 + 0.03 * np.sin(time))
    return frame


def _quantize_json(backend: str) -> dict[str, Any]:
    names = [f"model.layers.{i}.{part}" for i in range(2) for part in ("self_attn.o_proj", "mlp.down_proj")]
    return {
        "recipe": {"method": backend, "bits": 4, "group_size": 64, "clip": True, "search": None, "seed": 7},
        "calibration": {"name": "synthetic", "sha256": "c" * 64, "samples": 8, "seq_len": 128, "tokens": 1024},
        "linears": [
            {"name": name, "shape": [576, 1536], "tokens": 1024, "weight_error_rtn": 0.1, "weight_error": 0.11,
             "output_error_rtn": 0.09, "output_error": 0.06, "output_mse": share, "share": share}
            for name, share in zip(names, (0.1, 0.4, 0.2, 0.3), strict=True)
        ],
        "groups": [{"linears": ["model.layers.0.self_attn.o_proj"], "reason": "nothing absorbs a scale"}],
        "kept": ["model.layers.2.odd"],
        "warnings": ["the calibration text holds 8 of the 9 windows asked for"],
        "seconds": {"load": 1.0},
    }  # fmt: skip
