"""From the declared rules to one verdict per rule, per candidate and for the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from awqbench.compare.cell import Cell
from awqbench.errors import ExitCode, UserError
from awqbench.gate.collect import collect
from awqbench.gate.confirm import confirmed
from awqbench.gate.reruns import broken_reruns
from awqbench.gate.results import results, within_noise
from awqbench.record.schema import Comparison, Verdict, VerdictName
from awqbench.spec import GateSpec


def judge(
    spec_gates: Sequence[GateSpec],
    cells: Sequence[Cell],
    comparison: Comparison,
    reference: str,
    *,
    baseline_cells: Sequence[Cell] | None = None,
    policy_hash: str,
    policy: str = "",
    again: Sequence[Cell] | None = None,
    seed: int = 0,
) -> Verdict:
    """Apply every rule to every metric it matches and every candidate.

    A rule passes when its one-sided upper bound is within the margin: passing all of them is an intersection-union
    test (Berger 1982) and needs no correction. It fails when its p, adjusted by Holm over all rules judged here, is
    below its alpha, so that many rules raise no more false alarms than one. Otherwise it is inconclusive. Single
    figures without items are compared as they are. Groups under `min_group` are listed and don't count, unless a rule
    finds no larger one. `comparison` says which losses are within the noise floor: such a loss fails nothing and passes
    nothing. A limit that the reference fails against itself makes the measurement invalid.
    baseline_cells: an earlier run's, to be held against instead of the reference; where it lacks a suite this run's
    reference stands in. again: the cells of the confirmation; only what fails there too is a failure.
    A limit that cannot be measured on a candidate leaves it undecided. No rules at all give an inconclusive verdict,
    for nothing shows that the candidate may ship. Raises UserError for a rule that fits nothing, or an earlier run with
    other items.
    """
    found = collect(spec_gates, cells, reference, baseline_cells, seed)
    if spec_gates and len(found.not_applicable) == len(spec_gates):
        raise UserError(f"no rule of the policy applies to this run: {'; '.join(found.not_applicable)}")
    broken, unsound = broken_reruns(found.trials, cells, reference, seed)
    blocked = found.blocked | unsound
    rules = results(found.trials, within_noise(comparison))
    if again is not None:
        rules = confirmed(found.trials, rules, again, reference, seed)
    judged = [rule for rule, trial in zip(rules, found.trials, strict=True) if not trial.small]
    candidates = {
        name: _worst([r.verdict for r in judged if r.candidate == name], name in blocked)
        for name in sorted({rule.candidate for rule in rules} | blocked)
    }
    return Verdict(
        policy_hash=policy_hash,
        policy=policy,
        overall=_worst([rule.verdict for rule in judged], bool(found.invalid or found.unjudged or broken)),
        candidates=candidates,
        rules=rules,
        invalid=list(dict.fromkeys([*found.invalid, *broken])),
        unjudged=list(dict.fromkeys(found.unjudged)),
        not_applicable=list(dict.fromkeys(found.not_applicable)),
    )


def policy_hash(gates: Sequence[GateSpec]) -> str:
    """SHA-256 of the rules as canonical JSON: the same rules in the same order give the same hash."""
    data = [gate.model_dump(mode="json") for gate in gates]
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def exit_code(verdict: Verdict) -> ExitCode:
    """What the verdict means to a CI job. A measurement that failed outranks what the others say."""
    if verdict.invalid:
        return ExitCode.MEASUREMENT_FAILED
    if not verdict.rules:
        return ExitCode.INCONCLUSIVE  # nothing was judged
    codes = {"pass": ExitCode.DONE, "fail": ExitCode.GATE_FAILED, "inconclusive": ExitCode.INCONCLUSIVE}
    return codes[verdict.overall]


def _worst(verdicts: Sequence[VerdictName], blocked: bool) -> VerdictName:
    """Fail outranks inconclusive outranks pass; nothing judged, or not all that should be, is no pass."""
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts and not blocked and set(verdicts) == {"pass"} else "inconclusive"
