"""From the record to the judgement: nothing here measures, so a run can be judged again at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from awqbench.compare import Cell, compare_earlier, compare_tables, parity_notes, parity_rows
from awqbench.engines import parity_owners
from awqbench.errors import UserError
from awqbench.gate import judge, policy_hash
from awqbench.policies import Rules, declared, load_policy
from awqbench.record.baseline import Baseline, read_baseline
from awqbench.record.files import write_model
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import Run, load_run
from awqbench.record.schema import Comparison, Verdict
from awqbench.spec import GateSpec, RunSpec


def compare_run(run: Run, baseline: str | None = None, *, write: bool = True) -> Comparison:
    """Paired differences of a run. The baseline is its reference unless another of its backends is named, or an earlier
    run's directory or baseline file: each backend is then compared with itself there.

    The comparison against the reference becomes the run's, and with `write` its comparison.json. Raises UserError for a
    baseline that there is not, or whose data are not the same.
    """
    spec = spec_of(run)
    names = {cell.result.backend for cell in run.cells}
    unfinished = (
        [] if run.manifest.finished else [f"{run.path} is unfinished: some of its cells may be of an earlier spec"]
    )
    if baseline is not None and baseline not in names:
        if not Path(baseline).exists():
            there = ", ".join(sorted(names)) or "none measured"
            raise UserError(
                f"no backend {baseline!r} in {run.path} (allowed: {there}; an earlier run, or a file that awqbench "
                "baseline made)"
            )
        earlier = read_baseline(Path(baseline))
        check_same_data(run, earlier, Path(baseline))
        comparison = compare_earlier(
            cells_of(run), comparable(run, earlier), Path(baseline).name, min_group=min_groups(spec), seed=spec.seed
        )
        comparison.notes += unfinished + differing(run, earlier, Path(baseline), instead="are left out")
        return comparison
    noise = sorted({cell.result.backend for cell in run.cells if cell.result.role == "noise"})
    comparison = compare_tables(
        cells_of(run), baseline or spec.reference, noise if baseline is None else None, seed=spec.seed,
        min_group=min_groups(spec),
    )  # fmt: skip
    comparison.parity = parity_rows([Cell(c.result, c.items) for c in run.parity], parity_owners(spec), spec.parity)
    comparison.notes += unfinished + parity_notes(comparison.parity)
    if baseline is None:
        run.comparison = comparison
        if write:
            write_model(RunDirectory(run.path).comparison, comparison)
    return comparison


def judge_run(
    run: Run, policy: str | Path | None = None, baseline: Path | None = None, *, write: bool = True
) -> Verdict:
    """The gates' verdict, by the policy declared when the run began, or by another: a shipped name, or a file.

    `baseline` is an earlier run's directory or a baseline file: candidates are then held against the same backends
    there instead of this run's reference. Without one, a confirmation in the run directory is heard. Raises UserError
    when the baseline's items are not the same.
    """
    spec = spec_of(run)
    if run.manifest.finished is None:
        raise UserError(f"{run.path} is unfinished: run it again, it resumes")
    rules = load_policy(policy) if policy else rules_of(run)
    if not rules.gates:
        raise UserError(f"no [[gates]] in {policy or run.path / 'manifest.json'}: nothing says what may ship")
    comparison = run.comparison or compare_run(run, write=write)
    digest, notes = policy_hash(rules.gates), []
    declared_hash = run.manifest.declared_policy_hash or run.manifest.policy_hash
    if digest != declared_hash:
        notes.append(f"judged by {rules.name}: not the limits that were declared when the run began")
    earlier = None
    if baseline:
        earlier = read_baseline(baseline)
        check_same_data(run, earlier, baseline)
        notes += differing(run, earlier, baseline)
    verdict = judge(
        rules.gates, cells_of(run), comparison, spec.reference,
        baseline_cells=comparable(run, earlier) if earlier else None,
        policy_hash=digest, policy=rules.name, again=None if earlier else confirmation_of(run), seed=spec.seed,
    )  # fmt: skip
    if earlier:
        notes += lacking(verdict, earlier, baseline)
    verdict.notes = notes
    if write:
        write_model(RunDirectory(run.path).verdict, verdict)
    run.verdict = verdict
    return verdict


def rules_of(run: Run) -> Rules:
    """The rules in a run's manifest; those of its spec where an older awqbench wrote none."""
    if run.manifest.gates is None:
        return declared(spec_of(run))
    return Rules(run.manifest.policy, tuple(GateSpec.model_validate(gate) for gate in run.manifest.gates))


def check_same_data(run: Run, earlier: Baseline, path: Path) -> None:
    """Equal item names are not enough: a text or an item set may have changed under its name. What a candidate was made
    from is no such data: whether another calibration text has made it worse is what a gate may be for."""
    now = {name: digest for name, digest in run.manifest.data.items() if name not in _calibrating(spec_of(run))}
    changed = sorted(name for name, digest in now.items() if earlier.data.get(name, digest) != digest)
    if changed:
        raise UserError(
            f"{path} was measured on other data: {', '.join(changed)} changed since; make the baseline anew"
        )


def _calibrating(spec: RunSpec) -> set[str | None]:
    """Names of what checkpoints are made from and nothing is measured on."""
    recipes = [spec.quantize_for(name) for name in spec.backends]
    made = {name for recipe in recipes for name in (recipe.calibration, recipe.overrides)}
    suites = [*spec.suites.values(), spec.parity]
    measured = {getattr(suite, "text", None) for suite in suites}
    return made - measured.union(*(getattr(suite, "sets", ()) for suite in suites))


def comparable(run: Run, earlier: Baseline) -> list[Cell]:
    """The baseline's cells that this run can be held against: timings belong to the machine that took them."""
    same = earlier.hardware is not None and _machine(earlier.hardware) == _machine(run.manifest.hardware)
    return [Cell(c.result, c.items) for c in earlier.cells if same or c.result.kind != "latency"]


def differing(
    run: Run, earlier: Baseline, path: Path, instead: str = "are held against this run's reference"
) -> list[str]:
    """What else changed between the baseline and this run, in words; `instead`: what becomes of its times."""
    notes = []
    if any(c.result.kind == "latency" for c in earlier.cells) and len(comparable(run, earlier)) < len(earlier.cells):
        notes.append(f"{path} was timed on another machine: latency and memory {instead}")
    before, now = earlier.model.get("hash"), run.manifest.model.get("hash")
    if before and before != now:
        notes.append(f"{path} has another reference model: distances to the reference are not to the same one")
    return notes


def lacking(verdict: Verdict, earlier: Baseline, path: Path | None) -> list[str]:
    """What was judged and the baseline holds neither of the candidate nor of its own reference, in words."""
    cells = [c.result for c in earlier.cells if c.result.status == "ok"]
    known = {(c.backend, c.suite) for c in cells} | {("", c.suite) for c in cells if c.role == "reference"}
    missing = {f"{r.candidate}/{r.suite}" for r in verdict.rules if not known & {(r.candidate, r.suite), ("", r.suite)}}
    if not missing:
        return []
    return [f"{path} has no figures of {', '.join(sorted(missing))}: held against this run's reference"]


def _machine(hardware: dict[str, Any]) -> list[Any]:
    return [hardware.get("cpu"), hardware.get("gpus")]


def confirmation_of(run: Run) -> list[Cell] | None:
    """The cells of a finished second measurement of what this run holds now; None where there is none."""
    path = RunDirectory(run.path).confirmation
    if not (path / "manifest.json").is_file():
        return None
    again = load_run(path)
    now = {f"{c.result.backend}/{c.result.suite}": c.result.key for c in run.cells}
    stale = any(now.get(cell) != key for cell, key in (again.manifest.confirms or {}).items())
    return None if again.manifest.finished is None or stale else cells_of(again)


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
    """Compare, judge and report a run directory anew from its cells.

    What was found of earlier cells, or by rules that the spec no longer has, goes first: nothing may show it again.
    """
    from awqbench.report import render

    for earlier in (RunDirectory(path).comparison, RunDirectory(path).verdict):
        earlier.unlink(missing_ok=True)
    run = load_run(path)
    compare_run(run)
    try:
        if rules_of(run).gates:
            judge_run(run)
    finally:
        render(path)  # a gate that names no metric must not cost the report of what was measured
    return run
