"""A second candidate doesn't make the reference answer again: in a run directory by keys, across them by the cache."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from awqbench.api import run
from awqbench.executors import answering
from awqbench.executors.local import pending
from awqbench.fingerprint import model_hash
from awqbench.job import NOISE
from awqbench.plan import make_plan
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import Cell, Run
from awqbench.sources.models import ResolvedModel, resolve_model
from awqbench.spec import parse_spec

OTHER = {"kind": "reference", "role": "candidate", "batch_size": 3}


def spec(model: Path, responses: str = "off", noise: bool = False, **backends: Any) -> Any:
    return parse_spec(
        {
            "model": {"source": str(model)},
            "threads": 1,
            "backends": {"reference": {"kind": "reference"}, **backends},
            "noise_floor": {"enabled": noise},
            "cache": {"responses": responses},
            "suites": {"tasks": {"limit": 8}, "perplexity": {"text": "pydoc-topics", "window": 64, "windows": 2}},
        }
    )


def cells(done: Run, backend: str) -> dict[str, Cell]:
    return {cell.result.suite: cell for cell in done.cells if cell.result.backend == backend}


def test_other_kernels_of_ours_answer_anew(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends = {kind: {"kind": kind} for kind in ("reference", "awq")}
    table = {"backends": backends, "quantize": {"calibration": "pydoc-topics"}, "suites": {"perplexity": {}}}
    monkeypatch.setattr("awqbench.weights.kernel_identity", lambda device: [])  # nothing is compiled for a plan
    plan = make_plan(parse_spec(table), ResolvedModel(tiny_llama, "m", "path"), model_hash(tiny_llama))
    worker: Any = SimpleNamespace(description={"kernel": "cpu x14"})
    found = []
    for sources in ("as they were", "edited"):
        monkeypatch.setattr(answering, "kernel_identity", lambda device, sources=sources: [sources])
        jobs = (plan.job(f"cell/{name}/perplexity") for name in backends)
        found.append([answering.identity(plan, job, worker, tiny_llama) for job in jobs])
    assert [one == other for one, other in zip(*found, strict=True)] == [True, False]


@pytest.mark.slow
def test_the_reference_answers_once(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQBENCH_CACHE", str(tmp_path / "cache"))
    first = run(spec(tiny_llama, "reference"), tmp_path / "one")
    before = cells(first, "reference")

    # In the same run directory a candidate more is all that is left to do.
    grown = spec(tiny_llama, "reference", noise=True, other=OTHER)
    plan = make_plan(grown, resolve_model(str(tiny_llama)), model_hash(tiny_llama))
    left = {job.id for job in pending(plan, RunDirectory(tmp_path / "one"))}
    assert left == {f"cell/{name}/{suite}" for name in ("other", NOISE) for suite in ("tasks", "perplexity")}

    # In another directory the reference's answers are looked up, while the noise floor's are measured.
    anew = run(spec(tiny_llama, "reference", noise=True), tmp_path / "other")
    for suite, asked in (("tasks", 32), ("perplexity", 2)):
        found = cells(anew, "reference")[suite]
        assert found.result.notes == [
            f"{asked} of {asked} answers came from the response cache; the time of this cell is no figure"
        ]
        assert "measure" in before[suite].result.seconds
        assert "measure" not in found.result.seconds
        pd.testing.assert_frame_equal(found.items, before[suite].items, check_exact=True)
        assert found.result.metrics == before[suite].result.metrics
        assert cells(anew, NOISE)[suite].result.notes == []
        assert "measure" in cells(anew, NOISE)[suite].result.seconds
