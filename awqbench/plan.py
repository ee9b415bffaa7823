"""A spec becomes jobs: checkpoints and GGUF files to make, reference log-probabilities to record, cells to measure.

Each job has a key, the hash of everything that could change its result. A job whose result already carries its key is
not done again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from awqbench import __version__
from awqbench.backends.device import pick_device
from awqbench.backends.registry import kind
from awqbench.cores import usable_cores
from awqbench.engines import engine_versions, parity_owners
from awqbench.errors import UserError
from awqbench.fingerprint import suite_data
from awqbench.job import NOISE, PARITY, Job, Role
from awqbench.record.environment import processors
from awqbench.record.files import content_key
from awqbench.sources.models import ResolvedModel
from awqbench.spec import AnySuite, BackendSpec, RunSpec, SuiteBase
from awqbench.weights import Weights, gguf_job, weights_of

# Raised when a change to the measuring code changes figures: older cells are then measured again.
MEASUREMENT_VERSION = 7


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
    def noise_floor(self) -> tuple[str, ...]:
        """The backends that are the reference again."""
        return tuple(dict.fromkeys(job.backend for job in self.jobs if job.role == "noise"))

    def suite(self, name: str) -> AnySuite:
        """A suite's table; parity's is no suite of the spec."""
        return self.spec.parity if name == PARITY else self.spec.suites[name]

    def backend(self, name: str) -> BackendSpec:
        """A backend's table; the noise floor's is the reference's with another batch size."""
        sizes = self.spec.noise_floor.batch_sizes
        if name not in sizes:
            return self.spec.backends[name]
        return self.spec.backends[self.spec.reference].model_copy(update={"batch_size": sizes[name]})


def make_plan(spec: RunSpec, model: ResolvedModel, model_hash: str) -> Plan:
    """The jobs of a spec. Raises UserError for data or checkpoints that are not there: before anything is measured."""
    if taken := [name for name in spec.backends if name == NOISE or name in spec.noise_floor.batch_sizes]:
        raise UserError(f"backend name {taken[0]!r} is taken by the noise floor; choose another")
    shared = {
        "awqbench": [__version__, MEASUREMENT_VERSION],
        "engine": {name: version(name) for name in ("torch", "transformers", "lm-eval")},
        "model": model_hash,
        "own_code": spec.model.trust_remote_code,
        "dtype": spec.model.dtype,
        "device": str(pick_device(spec.model.device)),
        "machine": processors(),
        "threads": spec.threads,
        "seed": spec.seed,
    }
    data: dict[str, str] = {}
    jobs: list[Job] = []
    weights: dict[str, Weights] = {}
    # Another engine's weights may be what one of ours makes: these come first.
    for name in sorted(spec.backends, key=lambda name: spec.backends[name].weights is not None):
        made, weights[name] = weights_of(spec, name, shared, data, weights)
        jobs += made
    for suite_name, suite in spec.suites.items():
        found = suite_data(suite)
        data |= found
        jobs += _suite_jobs(spec, suite_name, suite, shared, found, weights)
    jobs += _parity_jobs(spec, shared, data, weights)
    return Plan(spec, model, model_hash, data, tuple(sorted(jobs, key=lambda job: _order(spec, job))))


def _order(spec: RunSpec, job: Job) -> tuple[int, int, int]:
    """Checkpoints first; then backend by backend, so that each loads its model once, the reference before all others
    and an engine's parity before its cells; timings last and suite by suite, so that what is compared was timed close
    together."""
    if job.kind in {"checkpoint", "gguf"}:
        return 0, int(job.kind == "gguf"), 0
    suites = list(spec.suites)
    backends = [
        spec.reference,
        *spec.noise_floor.batch_sizes,
        *(name for name in spec.backends if name != spec.reference),
    ]
    if job.suite and job.suite != PARITY and spec.suites[job.suite].kind == "latency":
        return 2, suites.index(job.suite), 0
    return 1, backends.index(job.backend), int(job.role != "parity")


def _suite_jobs(
    spec: RunSpec,
    suite_name: str,
    suite: SuiteBase,
    shared: dict[str, Any],
    data: dict[str, str],
    weights: dict[str, Weights],
) -> list[Job]:
    reference = spec.reference
    settings = suite.model_dump(exclude={"backends"})
    machine = [usable_cores(), os.environ.get("OMP_NUM_THREADS")] if settings["kind"] == "latency" else None
    against_reference = settings["kind"] == "divergence"

    def key(name: str, role: Role, share: float, batch_size: int | None) -> str:
        own = [*_runs(spec, reference if role == "noise" else name, weights), batch_size, share, role, machine]
        return content_key([shared, settings, data, own])

    roles: list[tuple[str, Role, float, int | None]] = []
    for name in spec.backends:
        if suite.backends is None or name in suite.backends or name == reference:
            roles.append((name, spec.role_of(name), 1.0, spec.backends[name].batch_size))
    # The noise floor runs right after the reference, so that both see the machine in the same state.
    at = 1 + next(i for i, (name, *_) in enumerate(roles) if name == reference)
    roles[at:at] = [
        (name, "noise", spec.noise_floor.share, size) for name, size in spec.noise_floor.batch_sizes.items()
    ]
    roles.sort(key=lambda entry: {"reference": 0, "noise": 1}.get(entry[1], 2))
    jobs: list[Job] = []
    needs: tuple[str, ...] = ()
    for name, role, share, batch in roles:
        job_key = key(name, role, share, batch)
        made = weights[reference if role == "noise" else name].needs
        if role == "reference" and against_reference:
            jobs.append(Job(f"logprobs/{suite_name}", "logprobs", name, suite_name, role, job_key, made))
            needs = (f"logprobs/{suite_name}",)
            continue
        if against_reference:
            job_key = content_key([job_key, jobs[0].key])
        jobs.append(Job(f"cell/{name}/{suite_name}", "cell", name, suite_name, role, job_key, (*made, *needs), share))
    return jobs


def _runs(spec: RunSpec, name: str, weights: dict[str, Weights]) -> list[Any]:
    """What of a backend can change its figures: its weights, its settings, its engine's versions."""
    backend = spec.backends[name]
    settings = backend.model_dump(
        exclude={"timeout_s", "batch_size", "checkpoint", "weights", "quantize", "role", "python"}
    )
    return [weights[name].key, settings, engine_versions(backend)]


def _parity_jobs(spec: RunSpec, shared: dict[str, Any], data: dict[str, str], weights: dict[str, Weights]) -> list[Job]:
    """Each foreign engine once, on the unquantized model, against the reference's log-probabilities."""
    owners = dict.fromkeys(parity_owners(spec).values())
    if not owners:
        return []
    found = suite_data(spec.parity)
    data |= found
    settings = spec.parity.model_dump(exclude={"max_kl", "max_disagreement"})
    base = content_key([shared, settings, found, _runs(spec, spec.reference, weights)])
    needs = weights[spec.reference].needs
    jobs = [Job(f"logprobs/{PARITY}", "logprobs", spec.reference, PARITY, "reference", base, needs)]
    for name in owners:
        backend = spec.backends[name]
        key = content_key([base, backend.kind, backend.options, backend.dtype, engine_versions(backend)])
        needs = (f"logprobs/{PARITY}",)
        if kind(backend.kind).weights == "gguf":
            jobs.append(gguf_job(f"gguf/{name}@{PARITY}", name, "parity", [shared["model"], "f16"], ()))
            needs += (jobs[-1].id,)
        jobs.append(Job(f"cell/{name}/{PARITY}", "cell", name, PARITY, "parity", key, needs))
    return jobs
