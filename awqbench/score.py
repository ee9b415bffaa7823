"""From the record to the judgement: nothing here measures, so a run can be judged again at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from awqbench.compare import Cell, compare_tables, parity_notes, parity_rows
from awqbench.engines import parity_owners
from awqbench.errors import UserError
from awqbench.gate import judge, policy_hash
from awqbench.record.baseline import Baseline, read_baseline
from awqbench.record.files import write_model
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import Run, load_run
from awqbench.record.schema import Comparison, Verdict
from awqbench.spec import RunSpec, load_gates


def compare_run(run: Run, baseline: str | None = None, *, write: bool = True) -> Comparison:
    """Paired differences of a run. The baseline is its reference unless another of its backends is named.

    With `write`, the comparison against the reference becomes the run's comparison.json.
    """
    spec = spec_of(run)
    names = {cell.result.backend for cell in run.cells}
    if baseline is not None and baseline not in names:
        raise UserError(
            f"no backend {baseline!r} in {run.path} (allowed: {', '.join(sorted(names)) or 'none measured'})"
        )
    noise = sorted({cell.result.backend for cell in run.cells if cell.result.role == "noise"})
    comparison = compare_tables(
        cells_of(run), baseline or spec.reference, noise if baseline is None else None, seed=spec.seed,
        min_group=min_groups(spec),
    )  # fmt: skip
    comparison.parity = parity_rows([Cell(c.result, c.items) for c in run.parity], parity_owners(spec), spec.parity)
    comparison.notes += parity_notes(comparison.parity)
    if write and baseline is None:
        write_model(RunDirectory(run.path).comparison, comparison)
    run.comparison = comparison
    return comparison


def judge_run(run: Run, policy: Path | None = None, baseline: Path | None = None, *, write: bool = True) -> Verdict:
    """The gates' verdict, by the policy declared in the run's spec or by another file's [[gates]].

    `baseline` is an earlier run's directory or a baseline file: candidates are then held against the same backends
    there instead of this run's reference. Raises UserError when its items are not the same.
    """
    spec = spec_of(run)
    if run.manifest.finished is None:
        raise UserError(f"{run.path} is unfinished: run it again, it resumes")
    gates = load_gates(policy) if policy else spec.gates
    if not gates:
        raise UserError(f"no [[gates]] in {policy or run.path / 'manifest.json'}: nothing says what may ship")
    comparison = run.comparison or compare_run(run, write=write)
    earlier = None
    if baseline:
        earlier = read_baseline(baseline)
        check_same_data(run, earlier, baseline)
    verdict = judge(
        gates, cells_of(run), comparison, spec.reference,
        baseline_cells=[Cell(c.result, c.items) for c in earlier.cells] if earlier else None,
        policy_hash=policy_hash(gates), seed=spec.seed,
    )  # fmt: skip
    if write:
        write_model(RunDirectory(run.path).verdict, verdict)
    run.verdict = verdict
    return verdict


def check_same_data(run: Run, earlier: Baseline, path: Path) -> None:
    """Equal item names are not enough: a text or an item set may have changed under its name."""
    changed = sorted(name for name, digest in run.manifest.data.items() if earlier.data.get(name, digest) != digest)
    if changed:
        raise UserError(
            f"{path} was measured on other data: {', '.join(changed)} changed since; make the baseline anew"
        )


def spec_of(run: Run) -> RunSpec:
    """The spec in a run's manifest."""
    try:
        return RunSpec.model_validate(run.manifest.spec)
    except ValidationError as error:
        raise UserError(f"the spec in {run.path / 'manifest.json'} is damaged: {error.errors()[0]['msg']}") from None


def cells_of(run: Run) -> list[Any]:
    """The run's cells as the comparison takes them."""
    return [Cell(cell.result, cell.items) for cell in run.cells]


def min_groups(spec: RunSpec) -> dict[str, int]:
    """The smallest group that is judged, by suite, of those that have the setting."""
    return {name: suite.min_group for name, suite in spec.suites.items() if hasattr(suite, "min_group")}


def rescore(path: Path) -> Run:
    """Compare, judge and report a run directory anew from its record."""
    from awqbench.report import render

    run = load_run(path)
    compare_run(run)
    try:
        if spec_of(run).gates:
            judge_run(run)
    finally:
        render(path)  # a gate that names no metric must not cost the report of what was measured
    return run
