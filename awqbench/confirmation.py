"""Measuring again what failed, on items that the first measurement left out, in RUN/confirmation.

Only the suites behind failed limits are measured, on the reference and on the candidates that failed them, with the
checkpoints of the first run. The seed stays, since it fixes the order in which items are drawn: the further draw is
what is new. A suite that has no budget has no other items, and is measured on the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from awqbench.api import measure
from awqbench.backends.registry import kind
from awqbench.executors.local import Watcher
from awqbench.gate.wording import unjudged
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import Run, load_run
from awqbench.record.schema import RuleResult
from awqbench.score import confirmation_of, judge_run, spec_of
from awqbench.spec import CacheSpec, NoiseFloorSpec, ParitySpec, RunSpec
from awqbench.watch import Silent


def confirm(path: str | Path, policy: str | Path | None = None, *, watcher: Watcher | None = None) -> Run:
    """Measure a judged run's failures a second time and judge it again; returns the run with the new verdict.

    Nothing is measured where nothing failed. A finished confirmation of the same cells is kept, also where it was of
    failures by other rules. With the run's own policy the verdict and the reports in the run directory are written
    anew. Raises UserError as `run` and `judge_run` do.
    """
    run = load_run(path)
    judge_run(run, policy, write=False)
    failed = {(rule.candidate, rule.suite) for rule in failures(run)}
    if failed:
        again = confirmation_of(run) or []
        failed |= {(c.result.backend, c.result.suite) for c in again if c.result.role != "reference"}
        place = RunDirectory(run.path)
        cells = {f"{c.result.backend}/{c.result.suite}": c.result.key for c in run.cells}
        # With the reference's, where it has one: a failure against another reference was not confirmed.
        sides = {f"{name}/{suite}" for candidate, suite in failed for name in (candidate, spec_of(run).reference)}
        confirms = {cell: cells[cell] for cell in sorted(sides & cells.keys())}
        measure(confirmation_spec(run, failed), place.confirmation, watcher or Silent(), confirms)
        run = load_run(path)
    judge_run(run, policy, write=policy is None)
    if policy is None:
        from awqbench.report import render

        render(run.path)
    return run


def failures(run: Run) -> list[RuleResult]:
    """The rules that fail by what was measured, whatever a confirmation has made of them; not those that the policy
    alone counts as failed."""
    rules = [rule for rule in run.verdict.rules if not unjudged(rule)] if run.verdict else []
    return [
        rule
        for rule in rules
        if rule.confirmation or (rule.verdict == "fail" and (rule.p_holm is None or rule.p_holm < rule.alpha))
    ]


def confirmation_spec(run: Run, failed: Iterable[tuple[str, str]]) -> RunSpec:
    """The spec of the second measurement: the next draw of the failed (candidate, suite), without rules."""
    spec = spec_of(run)
    by_suite: dict[str, set[str]] = {}
    for candidate, suite in failed:
        by_suite.setdefault(suite, set()).add(candidate)
    needed = {spec.reference, *(name for names in by_suite.values() for name in names)}
    needed |= {owner for name in needed if (owner := spec.backends[name].weights)}
    checkpoints = RunDirectory(run.path.resolve())
    backends = {
        name: backend.model_copy(update={"checkpoint": str(checkpoints.checkpoint(name))})
        if kind(backend.kind).weights == "made" and not backend.checkpoint
        else backend
        for name, backend in spec.backends.items()
        if name in needed
    }
    suites = {
        name: table.model_copy(update={"draw": table.draw + 1, "backends": sorted(by_suite[name])})
        for name, table in spec.suites.items()
        if name in by_suite
    }
    return spec.model_copy(
        update={
            "backends": backends,
            "suites": suites,
            "noise_floor": NoiseFloorSpec(enabled=False),
            "parity": ParitySpec(enabled=False),
            "cache": CacheSpec(responses="off"),  # an answer looked up is no second measurement
            "policy": None,
            "gates": [],
        }
    )
