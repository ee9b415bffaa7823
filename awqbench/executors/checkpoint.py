"""Quantize in a process of its own: its memory is given back, and a crash costs no more than this job."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from awqbench.errors import ExitCode, UserError
from awqbench.plan import Job, Plan
from awqbench.record.layout import move_into_place
from awqbench.sources.texts import resolve_text
from awqbench.worker.client import WorkerFailed

KEY_FILE = "awqbench-key"


def make_checkpoint(plan: Plan, job: Job, unfinished: Path, place: Path, progress: Callable[[int, int], None]) -> None:
    """Write the job's checkpoint to `place`. Raises UserError as the quantizer does, WorkerFailed if it dies."""
    settings = plan.spec.quantize_for(job.backend)
    calibration = unfinished / "calibration.txt"
    calibration.write_text(resolve_text(settings.calibration).content, encoding="utf-8")
    out = unfinished / "checkpoint"
    request = {
        "model_dir": str(plan.model.path),
        "out": str(out),
        "method": plan.backend(job.backend).kind,
        "bits": settings.bits,
        "group_size": settings.group_size,
        "clip": settings.clip,
        "calibration_file": str(calibration),
        "calibration_name": settings.calibration,
        "samples": settings.samples,
        "seq_len": settings.seq_len,
        "indivisible": settings.indivisible,
        "seed": plan.spec.seed,
        "trust_remote_code": plan.spec.model.trust_remote_code,
        "device": plan.spec.model.device,
        "threads": plan.spec.threads,
    }
    run_quantizer(request, unfinished / "log.txt", progress)
    (out / KEY_FILE).write_text(job.key)
    move_into_place(out, place)


def run_quantizer(request: Mapping[str, object], log: Path, progress: Callable[[int, int], None]) -> None:
    """Run `python -m awqbench.quantization` on a request; its progress comes as JSON lines."""
    command = [sys.executable, "-P", "-m", "awqbench.quantization"]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    failure = None
    try:
        process.stdin.write(json.dumps(dict(request)))
        process.stdin.close()
        for line in process.stdout:
            message = json.loads(line)
            if "error" in message:
                failure = message["error"]
            else:
                progress(message["done"], message["total"])
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
