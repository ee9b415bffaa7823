"""What a failed job leaves: the last lines of its log, also in the cells that needed it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from awqbench.errors import AwqbenchError, InvalidMeasurement, NotApplicable
from awqbench.executors import cell, local
from awqbench.executors.cell import Outcome
from awqbench.job import Job
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import read_record
from awqbench.record.schema import CellResult
from awqbench.watch import Silent
from awqbench.worker.client import WorkerFailed


def test_a_checkpoint_that_fails_hands_its_log_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(plan: Any, job: Job, run: RunDirectory, unfinished: Path, progress: Any) -> None:
        (unfinished / "log.txt").write_text("block 1\nblock 2\nout of disk\n")
        raise WorkerFailed("the quantizer exited with status 1: out of disk")

    monkeypatch.setattr(cell, "make_checkpoint", broken)
    run = RunDirectory(tmp_path / "run")
    plan: Any = SimpleNamespace(suite=lambda name: SimpleNamespace(kind="perplexity"))
    with pytest.raises(WorkerFailed) as caught:
        cell.run_job(plan, Job("checkpoint/awq", "checkpoint", "awq", None, "candidate", "k"), run, None, print)  # type: ignore[arg-type]
    assert caught.value.log_tail == ("block 1", "block 2", "out of disk")

    needing = Job("cell/awq/perplexity", "cell", "awq", "perplexity", "candidate", "k", ("checkpoint/awq",))
    local.record_failure(plan, needing, run, Outcome("failed", str(caught.value), caught.value.log_tail))
    recorded = read_record(run.cell("awq", "perplexity") / "result.json", CellResult)
    assert recorded.status == "failed"
    assert recorded.log_tail == ["block 1", "block 2", "out of disk"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(NotApplicable("no server tells whole distributions"), "not_applicable"),
     (InvalidMeasurement("a Gram matrix is not finite"), "failed")],
)  # fmt: skip
def test_what_cannot_be_recorded_or_made_costs_the_cells_that_need_it(
    error: AwqbenchError, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(plan: Any, job: Job, *_: object) -> Outcome:
        if job.kind == "logprobs":
            raise error
        return Outcome("ok")

    monkeypatch.setattr(local, "run_job", first)
    run = RunDirectory(tmp_path / "run")
    plan: Any = SimpleNamespace(suite=lambda name: SimpleNamespace(kind="divergence"))
    jobs = [
        Job("logprobs/d", "logprobs", "reference", "d", "reference", "k"),
        Job("cell/awq/d", "cell", "awq", "d", "candidate", "k", ("logprobs/d",)),
        Job("cell/awq/p", "cell", "awq", "p", "candidate", "k"),
    ]
    local._execute(plan, run, Silent(), None, jobs)  # type: ignore[arg-type]
    recorded = read_record(run.cell("awq", "d") / "result.json", CellResult)
    assert (recorded.status, recorded.reason) == (status, f"logprobs/d: {error}")
    assert not run.cell("awq", "p").exists()  # it was measured
