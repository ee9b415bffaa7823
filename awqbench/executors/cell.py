"""One job, start to end: the only code that brings a backend, a suite and the record together."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from awqbench.backends.registry import kind
from awqbench.engines import interpreter
from awqbench.errors import BackendUnavailable, InvalidMeasurement, NotApplicable, UserError
from awqbench.executors.answering import answering, cache_note
from awqbench.executors.checkpoint import make_checkpoint
from awqbench.executors.pool import Engine, WorkerPool
from awqbench.job import Job
from awqbench.plan import Plan
from awqbench.record.files import write_model
from awqbench.record.layout import RunDirectory, move_into_place
from awqbench.record.schema import CellResult, Status
from awqbench.suites.base import Context, Measurement, measure
from awqbench.suites.divergence import record_reference
from awqbench.telemetry import Sampler
from awqbench.worker.client import Worker, WorkerFailed
from awqbench.worker.logs import tail

Progress = Callable[[int, int], None]
GGUF_FILE = "model.gguf"
LOG_FILE = "log.txt"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    status: Status
    reason: str | None = None
    log_tail: tuple[str, ...] = ()


def run_job(plan: Plan, job: Job, run: RunDirectory, workers: WorkerPool, progress: Progress) -> Outcome:
    """Do one job and leave its result in the run directory.

    A cell that fails is recorded as failed and costs nothing else; a UserError of the reference (all would meet it) and
    KeyboardInterrupt pass through with nothing half-written.
    """
    unfinished = run.unfinished(job.id.replace("/", "__"))
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        return _do(plan, job, run, workers, unfinished, progress)
    except WorkerFailed as error:
        error.log_tail = tuple(tail(unfinished / LOG_FILE))  # the folder is gone before anybody else could read it
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _do(plan: Plan, job: Job, run: RunDirectory, workers: WorkerPool, unfinished: Path, progress: Progress) -> Outcome:
    if job.kind == "checkpoint":
        make_checkpoint(plan, job, run, unfinished, progress)
        return Outcome("ok")
    if job.kind == "logprobs":
        with workers.lease(_engine(plan, job, run), unfinished / LOG_FILE, fresh=False) as worker:
            record_reference(_context(plan, job, run, worker, progress), unfinished)
        return _keep_in_scratch(job, run, unfinished)
    if job.kind == "gguf":
        interpreter(plan.backend(job.backend))  # nothing is exported for an engine that is not there
        _export(plan, job, run, unfinished)
        return _keep_in_scratch(job, run, unfinished)
    return _measure_cell(plan, job, run, workers, unfinished, progress)


def _keep_in_scratch(job: Job, run: RunDirectory, unfinished: Path) -> Outcome:
    (unfinished / "key").write_text(job.key)
    move_into_place(unfinished, run.scratch(job.key))
    return Outcome("ok")


def _export(plan: Plan, job: Job, run: RunDirectory, unfinished: Path) -> None:
    """The backend's folder, or for parity the model's, as a GGUF file."""
    from awqbench.formats.gguf.export import export_gguf

    folder = plan.model.path if job.role == "parity" else _folder(plan, job.backend, run)
    form = "f16" if job.role == "parity" else plan.backend(job.backend).options.get("gguf", "blocks")
    try:
        export_gguf(folder, unfinished / GGUF_FILE, kind=form, name=plan.model.label)  # type: ignore[arg-type]  # it checks the kind
    except UserError as error:
        raise WorkerFailed(f"no GGUF file of {folder.name}: {error}") from error


def _measure_cell(
    plan: Plan, job: Job, run: RunDirectory, workers: WorkerPool, unfinished: Path, progress: Progress
) -> Outcome:
    assert job.suite is not None
    suite = plan.suite(job.suite)
    started = time.perf_counter()
    result = CellResult(
        backend=job.backend, suite=job.suite, kind=suite.kind, role=job.role, key=job.key, status="ok",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    measured = Measurement([])
    sampler = None
    try:
        # Timings and memory peaks want a process that did nothing before.
        fresh = suite.kind == "latency"
        with workers.lease(_engine(plan, job, run), unfinished / LOG_FILE, fresh=fresh) as worker:
            found = interpreter(plan.backend(job.backend))
            result.engine = {k: v for k, v in worker.description.items() if k != "load_s"}
            result.engine |= {"packages": dict(found.versions), "interpreter": found.origin}
            if (load_s := worker.description["load_s"]) is not None:  # None: a server had loaded its weights before
                result.seconds["load"] = load_s
            uuid = worker.description.get("device_uuid")
            with Sampler(worker.pid, plan.spec.telemetry_interval_s, uuid=uuid) as sampler:
                begun = time.perf_counter()
                with answering(plan, job, worker, _weights(plan, job, run)) as asked:
                    measured = measure(_context(plan, job, run, asked, progress))
                if kept := cache_note(asked):
                    measured.notes.append(kept)  # and no time: what was looked up was not measured
                else:
                    result.seconds["measure"] = time.perf_counter() - begun
            # A shared worker's peak belongs to whichever cell was hungriest: only a fresh worker's is reported.
            peaks = worker.memory() if fresh else {}
            held = worker.description.get("weight_bytes")
            weights = {} if held is None else {"weights": int(held)}
            result.memory = {**weights, **peaks, **measured.memory}
        result.telemetry = sampler.summary()
        on_gpu = str(result.engine.get("device", "")).startswith("cuda")
        _check(measured, suite.kind, on_gpu and result.telemetry.throttled)
        result.metrics, result.unmeasured = measured.metrics, measured.unmeasured
        result.notes = [*measured.notes, *dict.fromkeys(measured.unmeasured.values())]
    except BackendUnavailable as error:
        result.status, result.reason = "skipped", str(error)
    except NotApplicable as error:
        result.status, result.reason = "not_applicable", str(error)
    except (InvalidMeasurement, WorkerFailed, UserError) as error:
        # The reference comes first: what it refuses, all would. What another engine refuses is its own affair.
        if isinstance(error, UserError) and job.role in {"reference", "noise"}:
            raise
        result.status, result.reason = "failed", str(error)
        result.log_tail = tail(unfinished / LOG_FILE)
    result.seconds["total"] = time.perf_counter() - started
    if result.status == "ok":
        measured.items.to_parquet(unfinished / "items.parquet", index=False)
    if sampler is not None and len(sampler.frame()):
        sampler.frame().to_parquet(unfinished / "telemetry.parquet", index=False)
    (unfinished / LOG_FILE).touch()
    write_model(unfinished / "result.json", result)
    move_into_place(unfinished, run.cell(job.backend, job.suite))
    return Outcome(result.status, result.reason)


def _check(measured: Measurement, kind: str, throttled: bool | None) -> None:
    """Refuse figures that must not be believed."""
    for metric in measured.metrics:
        if metric.value is not None and not math.isfinite(metric.value):
            raise InvalidMeasurement(f"{metric.id} is {metric.value}")
    if kind == "latency" and throttled:
        raise InvalidMeasurement("the GPU throttled while it was timed; cool it or lower the power cap, then run again")


def _engine(plan: Plan, job: Job, run: RunDirectory) -> Engine:
    backend = plan.backend(job.backend)
    suite = plan.suite(job.suite) if job.suite else None
    weights = _weights(plan, job, run)
    options = {
        "model_dir": str(plan.model.path),
        "weights": str(weights or ""),
        "unquantized": job.role == "parity",
        "dtype": getattr(suite, "dtype", None) or backend.dtype or plan.spec.model.dtype,
        "device": plan.spec.model.device,
        "threads": plan.spec.threads,
        "batch_size": backend.batch_size,
        "runtime": backend.runtime,
        "trust_remote_code": plan.spec.model.trust_remote_code,
        "settings": dict(backend.options),
    }
    return Engine(backend.kind, tuple(options.items()), interpreter(backend).path, backend.timeout_s)


def _context(plan: Plan, job: Job, run: RunDirectory, worker: Worker, progress: Progress) -> Context:
    assert job.suite is not None
    scratch = next((run.scratch(plan.job(need).key) for need in job.needs if plan.job(need).kind == "logprobs"), None)
    return Context(
        plan.spec, plan.suite(job.suite), worker, plan.model.path, job.role, job.share, scratch,
        _weights(plan, job, run), progress,
    )  # fmt: skip


def _weights(plan: Plan, job: Job, run: RunDirectory) -> Path | None:
    """What the job's backend runs: a folder or a GGUF file; None where it lies on a server."""
    backend = plan.backend(job.backend)
    what = kind(backend.kind).weights
    if what == "server":
        return None
    if what == "gguf":
        exports = [plan.job(need) for need in job.needs if plan.job(need).kind == "gguf"]
        return run.scratch(exports[0].key) / GGUF_FILE if exports else Path(backend.checkpoint or "").resolve()
    return plan.model.path if job.role == "parity" else _folder(plan, job.backend, run)


def _folder(plan: Plan, name: str, run: RunDirectory) -> Path:
    """The Hugging Face folder behind a backend: its own, another backend's, or the model's."""
    if name in plan.noise_floor:
        name = plan.spec.reference  # which made, or has, the weights of its reruns
    backend = plan.backend(name)
    if backend.checkpoint:
        return Path(backend.checkpoint).resolve()
    if backend.weights:
        return _folder(plan, backend.weights, run)
    return run.checkpoint(name) if kind(backend.kind).weights == "made" else plan.model.path
