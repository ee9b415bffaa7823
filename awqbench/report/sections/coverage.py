"""What was measured: every backend on every suite, and why a cell has no figures."""

from __future__ import annotations

from dataclasses import dataclass

from awqbench.record.reader import Run
from awqbench.record.schema import CellResult
from awqbench.report import select


@dataclass(frozen=True)
class Coverage:
    """A matrix of cells; a missing key was never measured."""

    backends: list[str]
    suites: list[str]
    cells: dict[tuple[str, str], CellResult]

    @property
    def failed(self) -> list[CellResult]:
        """Cells that were to be measured and could not be, in display order."""
        return [cell for cell in self.cells.values() if cell.status == "failed"]


def coverage(run: Run) -> Coverage:
    """All cells of the run, in display order."""
    cells = select.ordered(run.cells)
    return Coverage(
        list(select.roles(run)),
        select.unique(c.result.suite for c in cells),
        {(c.result.backend, c.result.suite): c.result for c in cells},
    )
