"""What a comparison is made of: one backend on one suite, with its item rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import CellResult, Metric


@dataclass(frozen=True)
class Cell:
    """A cell's `result.json` and its item table (columns `ITEM_COLUMNS` and `group_*`)."""

    result: CellResult
    items: pd.DataFrame

    @property
    def ok(self) -> bool:
        """Whether the cell's figures may be used."""
        return self.result.status == "ok"

    def called(self, backend: str) -> Cell:
        """The same figures under another backend's name."""
        return replace(self, result=self.result.model_copy(update={"backend": backend}))

    def metric(self, metric_id: str) -> Metric | None:
        """The cell's metric of that id, if it has one."""
        return next((metric for metric in self.result.metrics if metric.id == metric_id), None)

    def rows(self, metric_id: str) -> pd.DataFrame:
        """The item rows of one metric, sorted by item_id.

        Raises InvalidMeasurement when an item appears twice: such rows cannot be paired.
        """
        rows = self.items[(self.items["metric"] == metric_id).fillna(False).astype(bool)]
        twice = rows["item_id"][rows["item_id"].duplicated()]
        if len(twice):
            where = f"{self.result.backend}/{self.result.suite}"
            raise InvalidMeasurement(f"{where}: item {twice.iloc[0]!r} of {metric_id} was measured twice")
        return rows.sort_values("item_id", ignore_index=True)


def same_items(first: Cell, second: Cell, metric_id: str) -> bool:
    """Whether a single figure, which has no items of its own, rests on the same items in both cells.

    What the cells' item tables hold decides, whatever the counts: BBQ's bias counts the answers that are not
    "unknown", which each model chooses for itself. Counts decide where there are no items, or the figure is one of a
    whole model.
    """
    before, after = first.metric(metric_id), second.metric(metric_id)
    if before is None or after is None:
        return False
    if first.items.empty or second.items.empty or before.n == after.n == 1:
        return before.n == after.n
    return set(first.items["item_id"]) == set(second.items["item_id"])


def by_name(cells: Iterable[Cell]) -> list[Cell]:
    """Cells in the order of suite and backend, whatever order they were read in."""
    return sorted(cells, key=lambda cell: (cell.result.suite, cell.result.backend))


def stand_in(cells: Sequence[Cell], backend: str, suite: str) -> Cell | None:
    """An empty cell of the reference, for suites that measure distances to it and so have none; None for others."""
    if any(cell.result.backend == backend and cell.result.role != "reference" for cell in cells):
        return None
    result = CellResult(
        backend=backend, suite=suite, kind="divergence", role="reference", key="", status="not_applicable"
    )
    return Cell(result, pd.DataFrame())


def find(cells: Sequence[Cell], backend: str, suite: str) -> Cell | None:
    """The cell of one backend on one suite, if there is one."""
    return next((cell for cell in cells if (cell.result.backend, cell.result.suite) == (backend, suite)), None)
