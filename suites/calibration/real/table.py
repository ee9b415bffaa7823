"""The tables of a power study as Markdown.

table.py runs/power/power.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def tests(rows: list[dict[str, Any]]) -> str:
    """Promised beside delivered, one line per single test and number of clusters."""
    lines = [
        "| copy | test | true loss | margin | clusters n | promised | delivered | 95 % interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        known = f"| {row['copy']} | {row['test']} | {row['effect']:.4f} | {row['margin']:.3g} |"
        if "n" not in row:
            lines.append(f"{known} any | - | - | nothing beyond the margin |")
            continue
        star = " (required_n)" if row["n"] == row["required n"] else ""
        lines.append(
            f"{known} {row['n']}{star} | {row['promised']:.0%} | {row['delivered']:.0%} | "
            f"{row['low']:.0%} to {row['high']:.0%} |"
        )
    return "\n".join(lines)


def gates(rows: list[dict[str, Any]]) -> str:
    """Verdicts of the shipped rules in per cent of the draws; of the groups, the damaged one and the largest other."""
    lines = ["| copy | rule | n | fail | pass | inconclusive |", "|---|---|---|---|---|---|"]
    for row in _shown(rows):
        shares = [f"{row[key] / row['draws']:.0%}" if key in row else "-" for key in ("fail", "pass", "inconclusive")]
        name = f"{row['policy']}: {row['group'] or row['rule']}" if "policy" in row else row["rule"]
        lines.append(f"| {row['copy']} | {name} | {row['n']} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without groups, and for each copy, rule and n the two groups that fail most often."""
    kept = [row for row in rows if row["group"] is None]
    keys = {(row["copy"], row["policy"], row["n"]) for row in rows if row["group"] is not None}
    for key in keys:
        of_key = [row for row in rows if row["group"] is not None and (row["copy"], row["policy"], row["n"]) == key]
        kept += sorted(of_key, key=lambda row: -row["fail"])[:2]
    return sorted(kept, key=lambda row: (row["copy"], row.get("policy", ""), row["group"] or row["rule"], row["n"]))


if __name__ == "__main__":
    result = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(tests(result["tests"]), gates(result["gates"]), sep="\n\n")
