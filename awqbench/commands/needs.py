"""What `awqbench quantize --dry-run` prints."""

from __future__ import annotations

from typing import Any

from rich import filesize
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_plan(plan: dict[str, Any]) -> None:
    """What quantizing a model would do and need, as `quantize_model` describes it."""
    console = Console(highlight=False)
    needs = plan["needs"]
    rows = {
        "blocks": str(plan["blocks"]),
        "linears to quantize": str(len(plan["linears"])),
        "linears kept": ", ".join(plan["kept"]) or "none",
        "memory at its peak": filesize.decimal(needs["peak"]),
        **{f"  {part}": filesize.decimal(size) for part, size in needs["memory"].items()},
        "disk for unfinished work": filesize.decimal(needs["workspace"]),
        "disk for the checkpoint": filesize.decimal(needs["checkpoint"]),
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in rows.items():
        table.add_row(name, Text(text))
    console.print(Text(plan["summary"]), soft_wrap=True)
    console.print(table)
    for warning in plan["warnings"]:
        console.print(f"warning: {warning}", markup=False, style="yellow", soft_wrap=True)
