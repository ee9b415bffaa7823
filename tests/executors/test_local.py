"""What is still to do in a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from awqbench.executors.local import pending
from awqbench.plan import Plan, make_plan
from awqbench.record.files import write_model
from awqbench.record.layout import RunDirectory
from awqbench.record.schema import CellResult
from awqbench.sources.models import ResolvedModel
from awqbench.spec import parse_spec

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


@pytest.mark.parametrize("lacks", [{"status": "not_applicable"}, {"unmeasured": {"perplexity/a": "too long"}}])
def test_a_server_is_asked_again_what_it_could_not_do(plan: Plan, tmp_path: Path, lacks: dict[str, Any]) -> None:
    """It may have been started otherwise; what was found of an engine in this process stays as its key does."""
    run = RunDirectory(tmp_path)
    record(plan, run)
    assert ids(plan, run) == []
    record(plan, run, far_perplexity=lacks, near_perplexity=lacks)
    assert ids(plan, run) == ["cell/far/perplexity"]
    assert ids(plan, run, again=False) == []


def test_for_what_a_server_could_not_do_alone_the_reference_records_nothing_anew(plan: Plan, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record(plan, run, far_divergence={"status": "not_applicable"}, far_parity={"status": "not_applicable"})
    assert ids(plan, run) == []
    lost = {"far_divergence": {"status": "not_applicable"}, "near_divergence": {"status": "failed"}}
    record(plan, run, **lost)
    assert ids(plan, run) == ["logprobs/divergence", "cell/far/divergence", "cell/near/divergence"]
