"""Every candidate against the reference and against every control, metric by metric and group by group."""

from awqbench.compare.cell import Cell
from awqbench.compare.parity import parity_notes, parity_rows
from awqbench.compare.tables import compare_earlier, compare_tables

__all__ = ["Cell", "compare_earlier", "compare_tables", "parity_notes", "parity_rows"]
