"""Quantize in a process of its own: its memory is given back, and a crash costs no more than this job."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from awqbench.errors import ExitCode, UserError
from awqbench.executors.request import request
from awqbench.job import Job
from awqbench.plan import Plan
from awqbench.record.layout import RunDirectory, move_into_place
from awqbench.worker.client import WorkerFailed

KEY_FILE = "awqbench-key"


def make_checkpoint(
    plan: Plan, job: Job, run: RunDirectory, unfinished: Path, progress: Callable[[int, int], None]
) -> None:
    """Make the job's checkpoint and put it in its place in the run directory.

    A quantization that was killed goes on where it stopped, from what it left in the job's scratch folder. Raises
    UserError as the quantizer does, WorkerFailed if it dies.
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
        except UserError:
            # A mistake in the spec must not leave a run directory behind.
            shutil.rmtree(scratch, ignore_errors=True)
            with contextlib.suppress(OSError):
                scratch.parent.rmdir()
            raise
    (out / KEY_FILE).write_text(job.key)
    move_into_place(out, run.checkpoint(job.backend))


def run_quantizer(asked: Mapping[str, object], log: Path, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Run `python -m awqbench.quantization` on a request; returns what `quantize_model` does.

    Progress (blocks done, blocks in all, the block at hand) comes as JSON lines. Raises UserError as the quantizer
    does, WorkerFailed if it dies.
    """
    command = [sys.executable, "-P", "-m", "awqbench.quantization"]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    failure = None
    result: dict[str, Any] = {}
    try:
        process.stdin.write(json.dumps(dict(asked)))
        process.stdin.close()
        for line in process.stdout:
            message = json.loads(line)
            if "error" in message:
                failure = message["error"]
            elif "result" in message:
                result = message["result"]
            else:
                progress(message["done"], message["total"], message["what"])
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    if code == ExitCode.USER_ERROR and failure:
        raise UserError(failure)
    if code != 0:
        died = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise WorkerFailed(f"the quantizer {died}: {lines[-1] if lines else 'it said nothing'}")
    return result
