"""What is still to do in a run directory, and whether there is room for it."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from awqbench.errors import UserError
from awqbench.executors import local
from awqbench.executors.local import pending
from awqbench.job import Job
from awqbench.plan import Plan, make_plan
from awqbench.record.files import write_model
from awqbench.record.layout import RunDirectory
from awqbench.record.schema import CellResult
from awqbench.sources.models import ResolvedModel, vocabulary_size
from awqbench.spec import DivergenceSpec, RunSpec, parse_spec
from awqbench.suites.base import Context
from awqbench.suites.divergence import record_reference, recorded_bytes
from awqbench.watch import Silent

SPEC: dict[str, Any] = {
    "backends": {
        "reference": {"kind": "reference"},
        "far": {"kind": "openai", "options": {"base_url": "http://localhost/v1"}},
        "near": {"kind": "transformers", "role": "candidate"},
    },
    "noise_floor": {"enabled": False},
    "suites": {"perplexity": {"text": "pydoc-topics"}, "divergence": {"text": "pydoc-topics"}},
}


@pytest.fixture
def plan() -> Plan:
    return make_plan(parse_spec(SPEC), ResolvedModel(Path("unused"), "m", "path"), "weights")


def record(plan: Plan, run: RunDirectory, **changed: dict[str, Any]) -> None:
    """Every cell is done; what `changed` says of those that it names, as backend_suite, is otherwise."""
    for job in plan.jobs:
        if job.kind == "cell" and job.suite is not None:
            result = CellResult(
                backend=job.backend, suite=job.suite, kind=job.suite, role=job.role, key=job.key, status="ok"
            )
            result = result.model_copy(update=changed.get(f"{job.backend}_{job.suite}", {}))
            write_model(run.cell(job.backend, job.suite) / "result.json", result)


def ids(plan: Plan, run: RunDirectory, *, again: bool = True) -> list[str]:
    return [job.id for job in pending(plan, run, again=again)]


def test_a_server_is_asked_again_what_it_could_not_do(plan: Plan, tmp_path: Path) -> None:
    """It may have been started otherwise; what was found of an engine in this process stays as its key does, and so
    does what a server was measured on but for a task, which would be measured whole each time."""
    run, lacks = RunDirectory(tmp_path), {"status": "not_applicable"}
    record(plan, run)
    assert ids(plan, run) == []
    record(plan, run, far_perplexity=lacks, near_perplexity=lacks)
    assert ids(plan, run) == ["cell/far/perplexity"]
    assert ids(plan, run, again=False) == []
    record(plan, run, far_perplexity={"unmeasured": {"perplexity/a": "too long"}})
    assert ids(plan, run) == []


def test_what_the_disk_cannot_hold_is_refused_before_anything_is_measured(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_plan(parse_spec(SPEC), ResolvedModel(tiny_llama, "m", "path"), "weights")
    vocabulary = vocabulary_size(tiny_llama)
    rows = 4 * 511 + 2 * 63 + 4 * 255 + 2 * 31  # the defaults of divergence, prefill and decode, and of parity
    asked: list[Job] = []
    monkeypatch.setattr(local, "_execute", lambda plan, run, watcher, workers, jobs: asked.extend(jobs))
    for free, refused in ((4 * rows * vocabulary, False), (4 * rows * vocabulary - 1, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with pytest.raises(UserError, match="GB free") if refused else nullcontext():
            local.execute(made, RunDirectory(tmp_path), Silent())
        assert bool(asked) != refused
        asked.clear()
    assert caplog.messages == []
    monkeypatch.setattr(local, "WORTH_SAYING", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**60))
    with caplog.at_level("INFO", "awqbench"):
        local.execute(made, RunDirectory(tmp_path), Silent())
    assert "until all is measured" in caplog.messages[0]


def test_as_much_is_recorded_as_was_said(tiny_llama: Path, tmp_path: Path) -> None:
    suite = DivergenceSpec(window=16, windows=3, decode_window=64, decode_windows=5)
    spec = RunSpec.model_validate({"suites": {"divergence": suite.model_dump()}})
    worker: Any = SimpleNamespace(
        description={"max_positions": 64}, logprobs=lambda ids, start, _: [np.zeros((len(ids) - start, 7))]
    )
    record_reference(Context(spec, suite, worker, tiny_llama), tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == recorded_bytes(suite, 7)


def test_for_what_a_server_could_not_do_alone_the_reference_records_nothing_anew(plan: Plan, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record(plan, run, far_divergence={"status": "not_applicable"}, far_parity={"status": "not_applicable"})
    assert ids(plan, run) == []
    lost = {"far_divergence": {"status": "not_applicable"}, "near_divergence": {"status": "failed"}}
    record(plan, run, **lost)
    assert ids(plan, run) == ["logprobs/divergence", "cell/far/divergence", "cell/near/divergence"]
