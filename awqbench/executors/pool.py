"""One live worker, kept while the next job wants the same engine: loading a model may take longer than measuring it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqbench.errors import NotApplicable
from awqbench.worker.client import GRACE_SECONDS, Worker


@dataclass(frozen=True, slots=True)
class Engine:
    """What a worker is started with; two jobs with equal engines may share one."""

    kind: str
    options: tuple[tuple[str, Any], ...]
    python: str | None
    timeout_s: float


class WorkerPool:
    """Lends the live worker, or starts another. A context manager: no worker outlives it."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._worker: Worker | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="awqbench-"))

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self._drop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def lease(self, engine: Engine, log: Path, *, fresh: bool) -> Iterator[Worker]:
        """A loaded worker for one job; what it prints meanwhile ends up in `log`.

        `fresh` asks for a new process, as timings and memory peaks want. Any exception ends the worker: after a
        failure its state is not to be trusted.
        """
        # One that died idle, of a lack of memory say, must not cost the next job.
        if fresh or engine != self._engine or self._worker is None or not self._worker.alive:
            self._drop()
        output = self._folder / "worker.log"
        start = output.stat().st_size if self._worker and output.exists() else 0
        try:
            if self._worker is None:
                output.unlink(missing_ok=True)
                worker = Worker(
                    engine.kind, dict(engine.options), output, python=engine.python, timeout_s=engine.timeout_s
                )
                self._worker, self._engine = worker.__enter__(), engine
            yield self._worker
        except NotApplicable:
            raise  # nothing went wrong in the worker
        except BaseException:
            self._drop(grace_s=0)
            raise
        finally:
            if output.exists():
                with output.open("rb") as stream, log.open("wb") as kept:
                    stream.seek(start)
                    shutil.copyfileobj(stream, kept)

    def _drop(self, grace_s: float = GRACE_SECONDS) -> None:
        if self._worker is not None:
            self._worker.close(grace_s)
        self._worker = self._engine = None
