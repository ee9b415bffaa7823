"""The results as a Markdown table."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from scipy import stats

HEAD = "| quantizer | bits | tokens | draws | CPU s | wall s | peak memory | perplexity | mean KL |"


def markdown(results: dict[str, Any]) -> str:
    """One line for each quantizer and number of bits, worst first; over draws the mean and half its 95 % t-interval."""
    lines = [HEAD, "|" + "---|" * 9]
    if reference := results.get("reference"):
        lines.append(f"| full precision | 32 | | | | | | {reference['perplexity']:.2f} | 0 |")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in results["rows"].values():
        tokens = 0 if row["method"] == "rtn" else row["windows"] * row["tokens"]
        groups[row["label"], row["bits"], tokens].append(row)
    for (label, bits, tokens), rows in sorted(groups.items(), key=lambda group: (group[0][1], -_worst(group[1]))):
        done = [row for row in rows if row["exit"] == 0]
        cells = [label, str(bits), f"{tokens:,}"]
        if done:
            cells += [str(len(done)), _mean(done, "cpu_s", 0), _mean(done, "wall_s", 0)]
            cells += [f"{max(row['peak_rss'] for row in done) / 1e9:.2f} GB"]
            cells += [_mean(done, "perplexity", 2), _mean(done, "kl", 4)]
        else:
            cells += ["0", f"{rows[0]['cpu_s']:.0f}", f"{rows[0]['wall_s']:.0f}", "", f"failed: {rows[0]['error']}", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _worst(rows: list[dict[str, Any]]) -> float:
    return max(float(row.get("kl", 0.0)) for row in rows)


def _mean(rows: list[dict[str, Any]], key: str, digits: int) -> str:
    values = [row[key] for row in rows]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"
