"""Quantize in a process of its own: its memory is given back, and a crash costs no more than this job."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from awqbench.errors import UserError
from awqbench.executors.child import DiskFull, Progress, run_child
from awqbench.executors.request import request
from awqbench.job import Job
from awqbench.plan import Plan
from awqbench.record.layout import RunDirectory, move_into_place

KEY_FILE = "awqbench-key"


def make_checkpoint(
    plan: Plan, job: Job, run: RunDirectory, unfinished: Path, progress: Callable[[int, int], None]
) -> None:
    """Make the job's checkpoint and put it in its place in the run directory.

    A quantization that was killed goes on where it stopped, from what it left in the job's scratch folder. Raises
    UserError as the quantizer does, WorkerFailed if it dies; only a mistake removes that folder.
    """
    scratch = run.scratch(job.key)
    out = scratch / "checkpoint"
    model = plan.spec.model
    asked = {
        **request(plan.spec.quantize_for(job.backend), plan.model.path, out, unfinished, plan.spec.seed),
        "resume": True,
        "source": plan.model.label if plan.model.origin == "hub" else None,
        "trust_remote_code": model.trust_remote_code,
        "device": model.device,
        "threads": plan.spec.threads,
    }
    if not out.exists():
        try:
            run_quantizer(asked, unfinished / "log.txt", lambda done, total, _: progress(done, total))
        except DiskFull:
            raise
        except UserError:
            # A mistake in the spec must not leave a run directory behind.
            shutil.rmtree(scratch, ignore_errors=True)
            with contextlib.suppress(OSError):
                scratch.parent.rmdir()
            raise
    (out / KEY_FILE).write_text(job.key)
    move_into_place(out, run.checkpoint(job.backend))


def run_quantizer(asked: Mapping[str, object], log: Path, progress: Progress) -> dict[str, Any]:
    """Quantize as a request says; returns what `quantize_model` does, and raises as `run_child` does.

    `progress` gets blocks done, blocks in all, and the block at hand.
    """
    return run_child("awqbench.quantization", "the quantizer", asked, log, progress)
