"""The default executor: jobs one after another on this machine, each in its own processes.

One at a time on purpose: two cells at once would disturb each other's latency and memory figures.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from typing import Protocol

from awqbench.backends.registry import kind
from awqbench.errors import BackendUnavailable, InvalidMeasurement, NotApplicable, UserError
from awqbench.executors.cell import Outcome, run_job
from awqbench.executors.checkpoint import KEY_FILE
from awqbench.executors.pool import WorkerPool
from awqbench.job import Job
from awqbench.plan import Plan
from awqbench.record.files import write_model
from awqbench.record.layout import RunDirectory, move_into_place
from awqbench.record.reader import read_record
from awqbench.record.schema import CellResult
from awqbench.sources.models import vocabulary_size
from awqbench.spec import DivergenceSpec, ParitySpec
from awqbench.suites.divergence import recorded_bytes
from awqbench.worker.client import WorkerFailed

log = logging.getLogger(__name__)
WORTH_SAYING = 10**9


class Watcher(Protocol):
    """Who is told what happens, to show it."""

    def begin(self, job: Job, number: int, total: int) -> Callable[[int, int], None]:
        """A job starts; returns where its progress goes."""

    def end(self, job: Job, outcome: Outcome) -> None:
        """A job ended."""


def pending(plan: Plan, run: RunDirectory, *, again: bool = True) -> list[Job]:
    """The jobs still to do: those without a result that carries their key, and what these need.

    With `again` also those that a server could not do: it may have been started otherwise since. Nothing is made for
    these alone.
    """
    wanted = {job.id for job in plan.jobs if job.kind == "cell" and not _cell_done(job, run)}
    # A checkpoint is a product of the run and always wanted; recorded log-probabilities only while a cell needs them.
    wanted |= {job.id for job in plan.jobs if job.kind == "checkpoint" and not _checkpoint_done(job, run)}
    for job in reversed(plan.jobs):  # needs come before what needs them
        if job.id in wanted:
            wanted |= {need for need in job.needs if not _prerequisite_done(plan.job(need), run)}
    if again:
        wanted |= {
            job.id
            for job in plan.jobs
            if job.kind == "cell"
            and _may_do_better(plan, job, run)
            and all(need in wanted or _prerequisite_done(plan.job(need), run) for need in job.needs)
        }
    return [job for job in plan.jobs if job.id in wanted]


def execute(plan: Plan, run: RunDirectory, watcher: Watcher) -> None:
    """Do every pending job. A job that fails is recorded; those that need it are recorded as failed too.

    Raises UserError, before the first, where the disk cannot hold what they leave for each other.
    """
    jobs = pending(plan, run)
    _check_disk(plan, run, jobs)
    with WorkerPool() as workers:
        _execute(plan, run, watcher, workers, jobs)


def _check_disk(plan: Plan, run: RunDirectory, jobs: list[Job]) -> None:
    """Say what the reference's log-probabilities take; raise UserError where the disk has not that much."""
    suites = [plan.suite(job.suite) for job in jobs if job.kind == "logprobs" and job.suite]
    recorded = [suite for suite in suites if isinstance(suite, DivergenceSpec | ParitySpec)]
    if not recorded:
        return
    vocabulary = vocabulary_size(plan.model.path, plan.spec.model.trust_remote_code)
    needed = sum(recorded_bytes(suite, vocabulary) for suite in recorded)
    free = shutil.disk_usage(run.root).free
    what = f"the reference's log-probabilities over {vocabulary:,} tokens take {needed / 1e9:.1f} GB in {run.root}"
    if needed > free:
        raise UserError(
            f"{what}, which has {free / 1e9:.1f} GB free (allowed: another --out, or fewer or shorter windows of"
            " divergence and parity)"
        )
    if needed > WORTH_SAYING:
        log.info("%s until all is measured", what)


def _execute(plan: Plan, run: RunDirectory, watcher: Watcher, workers: WorkerPool, jobs: list[Job]) -> None:
    failed: dict[str, Outcome] = {}
    for number, job in enumerate(jobs, 1):
        progress = watcher.begin(job, number, len(jobs))
        broken = next((failed[need] for need in job.needs if need in failed), None)
        if broken is not None:
            outcome = record_failure(plan, job, run, broken) if job.kind == "cell" else broken
            failed[job.id] = broken
        else:
            try:
                outcome = run_job(plan, job, run, workers, progress)
            except (WorkerFailed, InvalidMeasurement) as error:
                outcome = Outcome("failed", str(error), getattr(error, "log_tail", ()))
                failed[job.id] = Outcome("failed", f"{job.id}: {error}", outcome.log_tail)
            except BackendUnavailable as error:
                outcome = failed[job.id] = Outcome("skipped", str(error))
            except NotApplicable as error:
                outcome = failed[job.id] = Outcome("not_applicable", f"{job.id}: {error}")
        watcher.end(job, outcome)


def record_failure(plan: Plan, job: Job, run: RunDirectory, cause: Outcome) -> Outcome:
    """A cell that can't be measured because a job it needs failed, or the engine it needs it for is missing."""
    assert job.suite is not None
    result = CellResult(
        backend=job.backend, suite=job.suite, kind=plan.suite(job.suite).kind, role=job.role, key=job.key,
        status=cause.status, reason=cause.reason, log_tail=list(cause.log_tail),
    )  # fmt: skip
    unfinished = run.unfinished(job.id.replace("/", "__"))
    write_model(unfinished / "result.json", result)
    move_into_place(unfinished, run.cell(job.backend, job.suite))
    return cause


def _cell_done(job: Job, run: RunDirectory) -> bool:
    result = _result(job, run)
    return result is not None and result.key == job.key and result.status in {"ok", "not_applicable"}


def _may_do_better(plan: Plan, job: Job, run: RunDirectory) -> bool:
    if kind(plan.backend(job.backend).kind).weights != "server":
        return False
    result = _result(job, run)
    return result is not None and result.status == "not_applicable"


def _result(job: Job, run: RunDirectory) -> CellResult | None:
    assert job.suite is not None
    path = run.cell(job.backend, job.suite) / "result.json"
    return read_record(path, CellResult) if path.is_file() else None


def _checkpoint_done(job: Job, run: RunDirectory) -> bool:
    path = run.checkpoint(job.backend) / KEY_FILE
    return path.is_file() and path.read_text() == job.key


def _prerequisite_done(job: Job, run: RunDirectory) -> bool:
    if job.kind == "checkpoint":
        return _checkpoint_done(job, run)
    return (run.scratch(job.key) / "key").is_file()
