"""Results on a terminal."""

from __future__ import annotations

from typing import Any

from rich import filesize
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqbench.gate.wording import unjudged
from awqbench.record.reader import Run
from awqbench.record.schema import Comparison, Verdict, VerdictName

_STYLE = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
_ANSWER: dict[VerdictName, str] = {"pass": "may ship", "fail": "may NOT ship", "inconclusive": "is undecided"}


def print_run(run: Run) -> None:
    """The verdict, failed cells, and where the report lies."""
    console = Console()
    if run.verdict:
        print_verdict(run.verdict)
    elif run.comparison:
        print_comparison(run.comparison)
    for row in run.comparison.parity if run.comparison else []:
        if row.status != "within":
            line = f"engine parity {row.status}: {', '.join(row.backends)}: {row.reason}"
            console.print(line, style="yellow", markup=False, soft_wrap=True)
        for warning in row.warnings:
            console.print(f"{', '.join(row.backends)}: {warning}", style="yellow", markup=False, soft_wrap=True)
    for cell in run.cells:
        if cell.result.status != "ok":
            reason = f"{cell.result.status} {cell.result.backend}/{cell.result.suite}: {cell.result.reason}"
            console.print(reason, markup=False, style="yellow", soft_wrap=True)
    console.print(f"report: {run.path / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def print_verdict(verdict: Verdict) -> None:
    """One line per candidate and per rule."""
    console = Console()
    for line in verdict.invalid:
        console.print(f"invalid: {line}", style="bold red", markup=False, soft_wrap=True)
    if verdict.policy:
        console.print(f"judged by {verdict.policy}", style="dim", markup=False, soft_wrap=True)
    for line in verdict.notes:
        console.print(f"note: {line}", style="yellow", markup=False, soft_wrap=True)
    for candidate, answer in verdict.candidates.items():
        console.print(Text(f"{candidate} {_ANSWER[answer]}", style=_STYLE[answer]))
    untested = [rule for rule in verdict.rules if rule.verdict == "inconclusive" and unjudged(rule)]
    for rule in verdict.rules:
        if rule not in untested:
            mark = (f"{rule.verdict:<12}", _STYLE[rule.verdict])
            console.print(Text.assemble("  ", mark, f" {rule.candidate}: {rule.reason}"), soft_wrap=True)
    for line in verdict.unjudged:
        console.print(f"  not judged    {line}", style="yellow", markup=False, soft_wrap=True)
    for line in verdict.not_applicable:
        console.print(f"  n/a           {line}", style="dim", markup=False, soft_wrap=True)
    if untested:
        console.print(f"  not judged    {len(untested)} rules with too few items (see the report)", style="dim")


def print_comparison(comparison: Comparison) -> None:
    """The paired differences as a table. Names are folded where a terminal is narrow, figures are never cut."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in ("metric", "baseline", "candidate"):
        table.add_column(name, overflow="fold")
    for name in ("value", "change", "95 % interval", "p", "n", "MDE", "noise"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in (row for row in comparison.differences if not row.by_band):
        scale, unit = (100.0, " %") if row.delta_unit == "relative" else (1.0, "")

        def show(value: float | None, scale: float = scale, unit: str = unit) -> str:
            return "" if value is None else f"{value * scale:+.3g}{unit}"

        interval = f"{show(row.ci_low)} .. {show(row.ci_high)}" if row.ci_low is not None else ""
        table.add_row(
            Text(row.metric), Text(row.baseline), Text(row.candidate),
            "" if row.candidate_value is None else f"{row.candidate_value:.4g}",
            show(row.delta), interval, "" if row.p is None else f"{row.p:.2g}", str(row.n), show(row.mde),
            show(row.noise if row.noise_reach is None else row.noise_reach).replace("+", "±", 1),
        )  # fmt: skip
    # A terminal too narrow for the figures wraps the lines itself; a file or a pipe has no width.
    console.width = max(console.width, 120) if console.is_terminal else 10_000
    console.print(table)
    _print_bias(console, comparison)
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _print_bias(console: Console, comparison: Comparison) -> None:
    """Newly biased and unbiased items, and the groups that lost more than the worst of equal groups would have."""
    for row in comparison.differences:
        if row.bias_flips and row.role != "noise":
            up, down = row.bias_flips.newly_biased, row.bias_flips.newly_unbiased
            line = (
                f"{row.metric}, {row.candidate} against {row.baseline}: {up.count} of {row.bias_flips.n} items newly "
                f"biased ({up.share:.1%}), {down.count} newly unbiased ({down.share:.1%})"
            )
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    for worst in comparison.worst_groups:
        if worst.p < 0.05 and worst.excess > 0 and worst.role == "candidate":
            line = (
                f"{worst.metric}, {worst.candidate}: {worst.attribute} = {worst.group} lost most, {worst.loss:+.3g} "
                f"(p {worst.p:.2g} for the worst of {worst.groups} groups, n = {worst.n})"
            )
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_checkpoint(found: dict[str, Any]) -> None:
    """What a checkpoint is: what looks broken first, then its linears by kind, what is not quantized, and its bytes."""
    console = Console()
    title = f"{found['architecture'] or 'unknown architecture'}, {found['format']}"
    console.print(title if found["quantized"] else f"{title}: not quantized", style="bold", markup=False)
    _print_findings(console, found["findings"])
    if found["schemes"]:
        table = Table(box=None, pad_edge=False)
        for name in ("linears", "bits", "codes use", "group", "zero points", "weights"):
            table.add_column(name, justify="right")
        for row in found["schemes"]:
            group = "per channel" if row["group_size"] == -1 else str(row["group_size"])
            points = {True: "symmetric", False: "asymmetric", None: "unknown"}[row["symmetric"]]
            bits = row.get("type") or str(row["bits"])
            table.add_row(str(row["linears"]), bits, f"{row['codes_bits']} bits", group, points, f"{row['weights']:,}")
        console.print(table)
        console.print(f"{found['bits_per_weight']:.3f} bits per weight of these, scales and zero points included")
        degrees = ", ".join(map(str, found.get("tensor_parallel") or [])) or "no number of"
        console.print(f"splits evenly over {degrees} devices (of 2, 4, 8)", markup=False, highlight=False)
        _print_unquantized(console, found["not_quantized"])
    elif found["quantized"]:
        console.print(f"the linears of a {found['format']} checkpoint are not looked into", markup=False)
    parts = [f"{kind} {filesize.decimal(size)}" for kind, size in found["bytes"].items() if size]
    size = f"{found['parameters']:,} parameters, {filesize.decimal(found['total_bytes'])}: {', '.join(parts)}"
    console.print(size, markup=False, highlight=False, soft_wrap=True)
    recipe = found["recipe"] or {}
    for name in ("recipe", "calibration"):
        if isinstance(recipe.get(name), dict):
            said = ", ".join(f"{key} {value}" for key, value in recipe[name].items() if value is not None)
            console.print(f"{name}: {said}", markup=False, highlight=False, soft_wrap=True)


def _print_findings(console: Console, findings: list[dict[str, Any]]) -> None:
    """Each kind of finding once, with how many linears have it and the first of them."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for finding in findings:
        kinds.setdefault(finding["what"], []).append(finding)
    for what, members in kinds.items():
        count, of = (sum(member[key] for member in members) for key in ("count", "of"))
        where = f"{len(members)} tensors, first {members[0]['linear']}" if members[0]["linear"] else "the checkpoint"
        share = "" if count == of else f" ({count:,} of {of:,} there)"
        console.print(f"looks broken: {what}{share}: {where}", style="bold red", markup=False, soft_wrap=True)


def _print_unquantized(console: Console, rows: list[dict[str, Any]]) -> None:
    places = {"embedding": "embeddings", "head": "output head", "block": "linears of blocks", "other": "other matrices"}
    for place, title in places.items():
        names = [row["name"] for row in rows if row["place"] == place]
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            console.print(f"not quantized, {title}: {', '.join(names[:3])}{more}", markup=False, soft_wrap=True)
