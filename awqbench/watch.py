"""Showing what a run is doing: a bar with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from awqbench.executors.cell import Outcome
from awqbench.job import Job


class Silent:
    """Shows nothing: the default of the Python API."""

    def begin(self, job: Job, number: int, total: int) -> Callable[[int, int], None]:
        """Nothing."""
        return lambda done, total: None

    def end(self, job: Job, outcome: Outcome) -> None:
        """Nothing."""


class Display:
    """A line per finished job, and beneath them a bar for the run and one for the job at hand. A context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self.whole: TaskID | None = None
        self.current: TaskID | None = None
        self.started = 0.0
        self.number = 0

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def begin(self, job: Job, number: int, total: int) -> Callable[[int, int], None]:
        """Start the job's bar."""
        if self.whole is None:
            self.whole = self.progress.add_task("run", total=total)
        task = self.progress.add_task(job.id, total=None)
        self.current, self.started, self.number = task, time.perf_counter(), number
        whole = self.whole

        def report(done: int, of: int) -> None:
            self.progress.update(task, completed=done, total=of)
            self.progress.update(whole, completed=number - 1 + (done / of if of else 0.0))

        return report

    def end(self, job: Job, outcome: Outcome) -> None:
        """Replace the job's bar by its line."""
        seconds = time.perf_counter() - self.started
        if self.current is not None:
            self.progress.remove_task(self.current)
        if self.whole is not None:
            self.progress.update(self.whole, completed=self.number)
        mark = {"ok": "[green]done[/]", "skipped": "[yellow]skipped[/]", "not_applicable": "[dim]not applicable[/]"}
        status = mark.get(outcome.status, "[red]failed[/]")
        self.console.print(f"{status} {job.id} [dim]({seconds:.0f} s)[/]", highlight=False)
        if outcome.reason:
            self.console.print(f"       {outcome.reason}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def block_progress(title: str, unit: str = "blocks") -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error with the time left and the block at hand; yields what takes (done, total, block).

    `unit` says what is counted.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn(f"{{task.completed}}/{{task.total}} {unit}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[block]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, block="")
        yield lambda done, total, block: bar.update(task, completed=done, total=total, block=block)
