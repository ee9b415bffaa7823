"""Which cells may have their answers looked up, and what these answers depend on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from awqbench import __version__
from awqbench.backends.device import pick_device
from awqbench.backends.registry import kind
from awqbench.cores import usable_cores
from awqbench.engines import engine_versions
from awqbench.fingerprint import gguf_hash, model_hash
from awqbench.job import Job
from awqbench.plan import MEASUREMENT_VERSION, Plan
from awqbench.record.environment import processors
from awqbench.record.files import content_key
from awqbench.responses.cached import CachedWorker
from awqbench.responses.store import ResponseStore, store_path
from awqbench.weights import kernel_identity
from awqbench.worker.client import Worker

# Suites that score and generate. Time is never looked up, nor are whole distributions: they would be too large.
_SUITES = {"perplexity", "tasks", "fairness"}
# Said by an engine of one start, not of what it answers.
_PASSING = {"load_s", "device_uuid"}


@contextmanager
def answering(plan: Plan, job: Job, worker: Worker, weights: Path | None) -> Iterator[Worker]:
    """The worker itself, or one that looks up answers where the spec and the cell allow it.

    The noise floor and parity always measure anew: they would otherwise compare a file with itself. So does a server,
    whose weights nobody here can tell.
    """
    use = plan.spec.cache
    assert job.suite is not None
    allowed = use.responses == "all" or (use.responses == "reference" and job.role == "reference")
    if not allowed or job.role in {"noise", "parity"} or plan.suite(job.suite).kind not in _SUITES or weights is None:
        yield worker
        return
    with ResponseStore(store_path(), use.max_size) as store:
        yield cast(Worker, CachedWorker(worker, store, identity(plan, job, worker, weights)))


def identity(plan: Plan, job: Job, worker: Worker, weights: Path) -> str:
    """Hash of all that an answer depends on but the question: weights, engine, its settings, the machine, versions."""
    backend = plan.backend(job.backend)
    return content_key(
        [
            [__version__, MEASUREMENT_VERSION],
            model_hash(weights) if weights.is_dir() else gguf_hash(weights),
            plan.model_hash,  # its tokenizer and configuration may serve the engine as well
            backend.model_dump(include={"kind", "options", "dtype", "batch_size", "runtime"}),
            # Kernels of ours can change under one version of awqbench.
            kernel_identity(str(pick_device(plan.spec.model.device))) if kind(backend.kind).weights == "made" else None,
            [plan.spec.model.dtype, plan.spec.model.device, plan.spec.threads, plan.spec.model.trust_remote_code],
            engine_versions(backend),
            {key: value for key, value in worker.description.items() if key not in _PASSING},
            [processors(), usable_cores(), os.environ.get("OMP_NUM_THREADS")],
        ]
    )


def cache_note(worker: Worker) -> str | None:
    """What the record says of answers that were looked up; None where all were measured."""
    if not isinstance(worker, CachedWorker) or not worker.hits:
        return None
    return f"{worker.hits} of {worker.asked} answers came from the response cache; the time of this cell is no figure"
