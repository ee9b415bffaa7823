"""Work in a process of its own: its memory is given back, and a crash costs no more than this piece of work.

`run_child` starts `python -m MODULE` with a JSON request on its standard input; that module calls `serve`, which
answers with JSON lines on standard output: progress, then a result or an error in one line.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from awqbench.errors import AwqbenchError, ExitCode, InvalidMeasurement, UserError
from awqbench.worker.client import WorkerFailed

Progress = Callable[[int, int, str], None]


class DiskFull(UserError):
    """The child's disk is full. What it had finished lies where it was: with more room it goes on from there."""


_ERRORS: dict[int, type[AwqbenchError]] = {
    ExitCode.USER_ERROR: UserError,
    ExitCode.MEASUREMENT_FAILED: InvalidMeasurement,
}


def run_child(module: str, who: str, asked: Mapping[str, object], log: Path, progress: Progress) -> dict[str, Any]:
    """Run `module` on a request; returns its result. `who` names it in messages, `log` takes its standard error.

    `progress` gets what is done, what there is in all, and what is at hand. Raises UserError and InvalidMeasurement as
    the module does, DiskFull, and WorkerFailed if it dies.
    """
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    failure, full = None, False
    result: dict[str, Any] = {}
    try:
        process.stdin.write(json.dumps(dict(asked)))
        process.stdin.close()
        for line in process.stdout:
            message = json.loads(line)
            if "error" in message:
                failure, full = message["error"], message.get("full", False)
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
    if failure and code in _ERRORS:
        raise DiskFull(failure) if full else _ERRORS[code](failure)
    if code != 0:
        died = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise WorkerFailed(f"{who} {died}: {lines[-1] if lines else 'it said nothing'}")
    return result


def serve(work: Callable[[dict[str, Any], Progress], dict[str, Any]]) -> int:
    """The child's side: do `work` on the request and answer; returns the exit status.

    Errors that people can mend, and a full disk, are told in one line; others keep their traceback.
    """
    from awqbench.worker.guard import die_with_parent

    die_with_parent()
    # Standard output is the channel: whatever a library prints goes to the log instead.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**message: Any) -> None:
        print(json.dumps(message), file=channel)

    request = json.load(sys.stdin)
    try:
        say(result=work(request, lambda done, total, what: say(done=done, total=total, what=what)))
    except InvalidMeasurement as error:
        say(error=str(error))
        return ExitCode.MEASUREMENT_FAILED
    except AwqbenchError as error:
        say(error=str(error))
        return ExitCode.USER_ERROR
    except Exception as error:
        if not _disk_is_full(error):
            raise
        say(error=f"the disk is full: {error}", full=True)
        return ExitCode.USER_ERROR
    return ExitCode.DONE


def _disk_is_full(error: Exception) -> bool:
    # safetensors reports what the system said in words only.
    return getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or "No space left" in str(error)
