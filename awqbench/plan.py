"""A spec becomes jobs: checkpoints to make, reference log-probabilities to record, cells to measure.

Each job has a key, the hash of everything that could change its result. A job whose result already carries its key is
not done again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from awqbench import __version__, fingerprint
from awqbench.backends.torch_engine import pick_device
from awqbench.errors import UserError
from awqbench.executors.request import check_settings
from awqbench.fingerprint import file_hash, folder_hash, suite_data
from awqbench.formats.config import read_config
from awqbench.ops import cpu, cuda_build
from awqbench.record.environment import hardware, usable_cores
from awqbench.record.files import content_key
from awqbench.resources import content
from awqbench.sources.documents import resolve_documents
from awqbench.sources.models import ResolvedModel
from awqbench.spec import BackendSpec, RunSpec, SuiteBase

Role = Literal["reference", "candidate", "control", "noise"]
NOISE = "reference-again"
# Raised when a change to the measuring code changes figures: older cells are then measured again.
MEASUREMENT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to do. `needs` are ids of jobs whose results it reads."""

    id: str
    kind: Literal["checkpoint", "logprobs", "cell"]
    backend: str
    suite: str | None
    role: Role
    key: str
    needs: tuple[str, ...] = ()
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """All jobs of a run, in an order that respects `needs`."""

    spec: RunSpec
    model: ResolvedModel
    model_hash: str
    data: dict[str, str]
    jobs: tuple[Job, ...]

    def job(self, identity: str) -> Job:
        """The job with this id."""
        return next(job for job in self.jobs if job.id == identity)

    @property
    def noise_floor(self) -> str | None:
        """The backend that is the reference again, when the plan has one."""
        return NOISE if any(job.role == "noise" for job in self.jobs) else None

    def backend(self, name: str) -> BackendSpec:
        """A backend's table; the noise floor's is the reference's with another batch size."""
        if name != NOISE:
            return self.spec.backends[name]
        reference = self.spec.backends[self.spec.reference]
        return reference.model_copy(update={"batch_size": self.spec.noise_floor.batch_size})


def make_plan(spec: RunSpec, model: ResolvedModel, model_hash: str) -> Plan:
    """The jobs of a spec. Raises UserError for data or checkpoints that are not there: before anything is measured."""
    if NOISE in spec.backends:
        raise UserError(f"backend name {NOISE!r} is taken by the noise floor; choose another")
    machine = hardware()
    shared = {
        "awqbench": [__version__, MEASUREMENT_VERSION],
        "engine": {name: version(name) for name in ("torch", "transformers", "lm-eval")},
        "model": model_hash,
        "dtype": spec.model.dtype,
        "device": str(pick_device(spec.model.device)),
        "machine": [machine["cpu"], machine["gpus"]],
        "threads": spec.threads,
        "seed": spec.seed,
    }
    data: dict[str, str] = {}
    jobs: list[Job] = []
    weights: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name, backend in spec.backends.items():
        job, weights_key = _weights(spec, name, backend, shared, data)
        jobs += [job] if job else []
        weights[name] = weights_key, ((job.id,) if job else ())
    for suite_name, suite in spec.suites.items():
        found = suite_data(suite)
        data |= found
        jobs += _suite_jobs(spec, suite_name, suite, shared, found, weights)
    return Plan(spec, model, model_hash, data, tuple(sorted(jobs, key=lambda job: _order(spec, job))))


def _order(spec: RunSpec, job: Job) -> tuple[int, int]:
    """Checkpoints first; then backend by backend, so that each loads its model once, the reference before all others;
    timings last and suite by suite, so that what is compared was timed close together."""
    if job.kind == "checkpoint":
        return 0, 0
    suites = list(spec.suites)
    backends = [spec.reference, NOISE, *(name for name in spec.backends if name != spec.reference)]
    if job.suite and spec.suites[job.suite].kind == "latency":
        return 2, suites.index(job.suite)
    return 1, backends.index(job.backend)


def _weights(
    spec: RunSpec, name: str, backend: BackendSpec, shared: dict[str, Any], data: dict[str, str]
) -> tuple[Job | None, str]:
    """The job that makes a backend's checkpoint, if one must be made, and a key for its weights."""
    if backend.kind == "reference":
        return None, "reference"
    if backend.checkpoint:
        if not Path(backend.checkpoint).is_dir():
            raise UserError(f"backends.{name}.checkpoint: no folder at {backend.checkpoint}")
        read_config(Path(backend.checkpoint))  # a folder that is no checkpoint must not wait for its cell
        return None, content_key([fingerprint.model_hash(Path(backend.checkpoint)), _kernel(shared["device"])])
    settings = spec.quantize_for(name)
    check_settings(settings)
    recipe: dict[str, Any] = {**shared, "quantize": settings.model_dump(exclude={"max_memory", "workers"})}
    documents = resolve_documents(settings.calibration, settings.text_field)
    recipe["calibration"] = data[settings.calibration] = documents.sha256
    if settings.overrides:
        recipe["overrides"] = data[settings.overrides] = file_hash(Path(settings.overrides))
    key = content_key(recipe)
    return Job(f"checkpoint/{name}", "checkpoint", name, None, spec.role_of(name), key), content_key(
        [key, _kernel(shared["device"])]
    )


def _kernel(device: str) -> list[str | None]:
    """What multiplies packed weights here: the kernels' sources, and whether they can be built."""
    on_cpu = [folder_hash(content("kernels") / "cpu"), cpu.unavailable()]
    return [*on_cpu, cuda_build.identity()] if device.startswith("cuda") else on_cpu


def _suite_jobs(
    spec: RunSpec,
    suite_name: str,
    suite: SuiteBase,
    shared: dict[str, Any],
    data: dict[str, str],
    weights: dict[str, tuple[str, tuple[str, ...]]],
) -> list[Job]:
    reference = spec.reference
    settings = suite.model_dump(exclude={"backends"})
    machine = [usable_cores(), os.environ.get("OMP_NUM_THREADS")] if settings["kind"] == "latency" else None
    against_reference = settings["kind"] == "divergence"

    def key(name: str, role: Role, share: float, batch_size: int | None) -> str:
        backend = spec.backends[reference if role == "noise" else name].model_dump(
            exclude={"timeout_s", "batch_size", "checkpoint", "quantize", "role"}
        )
        own = [weights[reference if role == "noise" else name][0], backend, batch_size, share, role, machine]
        return content_key([shared, settings, data, own])

    roles: list[tuple[str, Role, float, int | None]] = []
    for name in spec.backends:
        if suite.backends is None or name in suite.backends or name == reference:
            roles.append((name, spec.role_of(name), 1.0, spec.backends[name].batch_size))
    # The noise floor runs right after the reference, so that both see the machine in the same state.
    if spec.noise_floor.enabled:
        at = 1 + next(i for i, (name, *_) in enumerate(roles) if name == reference)
        roles.insert(at, (NOISE, "noise", spec.noise_floor.share, spec.noise_floor.batch_size))
    roles.sort(key=lambda entry: {"reference": 0, "noise": 1}.get(entry[1], 2))
    jobs: list[Job] = []
    needs: tuple[str, ...] = ()
    for name, role, share, batch in roles:
        job_key = key(name, role, share, batch)
        made = () if role == "noise" else weights[name][1]
        if role == "reference" and against_reference:
            jobs.append(Job(f"logprobs/{suite_name}", "logprobs", name, suite_name, role, job_key))
            needs = (f"logprobs/{suite_name}",)
            continue
        if against_reference:
            job_key = content_key([job_key, jobs[0].key])
        jobs.append(Job(f"cell/{name}/{suite_name}", "cell", name, suite_name, role, job_key, (*made, *needs), share))
    return jobs
