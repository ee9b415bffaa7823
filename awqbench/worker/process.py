"""A worker's process as its client holds it: started with a guard, and ended with everything it started."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import awqbench.errors as errors
from awqbench.worker import family
from awqbench.worker.logs import tail


class WorkerProcess:
    """`python -m awqbench.worker` with a connection to it.

    Raises BackendUnavailable when the interpreter cannot be started.
    """

    def __init__(self, target: str, log: Path, python: str, environment: Mapping[str, str]) -> None:
        self.log = log
        self._mark = secrets.token_hex(16)
        self.connection, theirs = socket.socketpair()
        read, self._control = os.pipe()
        command = [
            python, "-P", "-m", "awqbench.worker", "--connection", str(theirs.fileno()), "--control", str(read),
            "--client", str(os.getpid()), "--backend", target,
        ]  # fmt: skip
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", **environment}
        env[family.MARK] = self._mark
        if python != sys.executable:
            env["PYTHONPATH"] = str(_package_only_path())
        try:
            with open(log, "ab") as output:
                self._guard = subprocess.Popen(
                    command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    pass_fds=[theirs.fileno(), read], start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self.connection.close()
            os.close(self._control)
            raise errors.BackendUnavailable(f"cannot start {python}: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(read)
        self._ended = False

    def end(self, grace_s: float) -> int:
        """Close the connection, wait so long for the worker to end by itself, then end it and all its descendants.

        Returns its exit status, negative for a signal. May be called again.
        """
        if not self._ended:
            self._ended = True
            self.connection.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(grace_s)
            os.close(self._control)  # the guard's sign
            try:
                self._guard.wait(family.PATIENCE_SECONDS + 2)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait()
            family.end(lambda: family.marked(self._mark))  # were the guard itself killed, orphans would be left
        return self._guard.wait()

    @property
    def alive(self) -> bool:
        """Whether the worker and its guard run."""
        return self._guard.poll() is None

    def obituary(self) -> str:
        """How a worker that closed the connection came to its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(family.PATIENCE_SECONDS + 2)
        code = self._guard.poll()
        if code is None:
            return "the worker closed the connection"
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"the worker was ended by {signal.Signals(-code).name}{hint}"
        lines = tail(self.log, 1)
        return f"the worker exited with status {code}: {lines[0] if lines else 'it said nothing'}"


def _package_only_path() -> Path:
    """A folder that holds this package and nothing else, for another interpreter's PYTHONPATH."""
    from awqbench.cache import cache_dir

    package = Path(errors.__file__).resolve().parent
    folder = cache_dir("worker-path") / sha256(str(package).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / "awqbench").symlink_to(package)
    return folder
