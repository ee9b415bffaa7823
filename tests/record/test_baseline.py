"""What may be a baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from awqbench.errors import UserError
from awqbench.record.baseline import read_baseline, write_baseline
from awqbench.record.files import write_model
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import load_run
from awqbench.record.schema import CellResult, Manifest
from awqbench.suites.base import item_table


def test_an_unfinished_run_is_no_baseline(tmp_path: Path) -> None:
    """Of its missing cells each would be held against the new run's reference instead."""
    run = RunDirectory(tmp_path / "run")
    manifest = Manifest(awqbench_version="0", created="", spec={}, spec_hash="", policy_hash="", model={})
    cell = CellResult(backend="awq", suite="tasks", kind="tasks", role="candidate", key="k", status="ok")
    write_model(run.manifest, manifest)
    write_model(run.cell("awq", "tasks") / "result.json", cell)
    with pytest.raises(UserError, match="unfinished and no baseline"):
        write_baseline(load_run(run.root), tmp_path / "baseline.json")
    with pytest.raises(UserError, match="unfinished and no baseline"):
        read_baseline(run.root)
    write_model(run.manifest, manifest.model_copy(update={"finished": "2026-01-01T00:00:00+00:00"}))
    write_baseline(load_run(run.root), tmp_path / "baseline.json")
    for path in (run.root, tmp_path / "baseline.json"):
        assert [found.result.key for found in read_baseline(path).cells] == ["k"]


def test_scores_keep_all_their_digits(tmp_path: Path) -> None:
    """A model that is the same to the last bit failed `zero_tolerance` by the rounding of its own baseline."""
    run = RunDirectory(tmp_path / "run")
    manifest = Manifest(
        awqbench_version="0", created="", finished="now", spec={}, spec_hash="", policy_hash="", model={}
    )
    cell = CellResult(backend="awq", suite="perplexity", kind="perplexity", role="candidate", key="k", status="ok")
    scores = np.random.default_rng(0).normal(3, 0.5, 30)
    items = item_table([{"metric": "m", "item_id": f"i{i}", "score": score} for i, score in enumerate(scores)])
    write_model(run.manifest, manifest)
    write_model(run.cell("awq", "perplexity") / "result.json", cell)
    items.to_parquet(run.cell("awq", "perplexity") / "items.parquet")
    write_baseline(load_run(run.root), tmp_path / "baseline.json")
    (found,) = read_baseline(tmp_path / "baseline.json").cells
    assert found.items["score"].tolist() == scores.tolist()
