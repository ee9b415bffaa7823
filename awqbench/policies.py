"""Named policies (content of suites/policies), policy files, and the rules a spec declares."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from awqbench.errors import UserError, unknown_choice
from awqbench.resources import content
from awqbench.spec import GateSpec, Policy, RunSpec, parse_policy


@dataclass(frozen=True)
class Rules:
    """Limits in the order in which they are hashed, and what to call them."""

    name: str
    gates: tuple[GateSpec, ...]
    description: str = ""


def shipped_policies() -> dict[str, Path]:
    """The files of the policies that awqbench ships, by name."""
    return {path.stem: path for path in sorted((content("suites") / "policies").glob("*.toml"))}


def load_policy(name: str | Path) -> Rules:
    """A shipped policy by its name, else a file: [[gates]], or a whole bench.toml.

    Where a file itself names a policy, that policy's rules come first. Raises UserError for a name that is neither,
    and as `parse_policy` does.
    """
    return _load(str(name), ())


def declared(spec: RunSpec) -> Rules:
    """What a spec declares: the rules of its `policy`, then its own [[gates]]. All of them must hold: a spec can add to
    a policy and take nothing from it. Raises UserError as `load_policy` does, and for a rule on an unknown backend."""
    found = _combined(spec.policy, spec.gates, "the spec's own rules", ())
    for gate in found.gates:
        for backend in gate.candidates or ():
            if backend not in spec.backends:
                raise UserError(f"gate on {gate.metric!r} names {backend!r}; backends are {sorted(spec.backends)}")
    return found


def refuse_unmeasured(rules: Rules, spec: RunSpec) -> None:
    """Raise UserError for a rule that no suite of the spec can yield a metric for: before anything is measured."""
    kinds = sorted({suite.kind for suite in spec.suites.values()})
    for gate in rules.gates:
        if not gate.optional and gate.suite_kind not in (None, *kinds):
            raise UserError(
                f"gate on {gate.metric!r} matches no metric: the suites are of kind {', '.join(kinds)} (allowed: a"
                " suite that measures it, or optional = true)"
            )


def _load(name: str, within: tuple[str, ...]) -> Rules:
    shipped = shipped_policies()
    path = shipped.get(name, Path(name))
    if name in within:
        raise UserError(f"policy {name} names itself (through {' and '.join(within)})")
    if not path.exists() and path.suffix != ".toml" and len(path.parts) == 1:
        raise unknown_choice("policy", name, [*shipped, "a TOML file with [[gates]]"])
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"cannot read the policy {path}: {error}") from None
    policy: Policy = parse_policy(data, str(path))
    found = _combined(policy.policy, policy.gates, name, (*within, name))
    return Rules(name, found.gates, policy.description)


def _combined(policy: str | None, own: list[GateSpec], own_name: str, within: tuple[str, ...]) -> Rules:
    if policy is None:
        return Rules(own_name, tuple(own))
    base = _load(policy, within)
    return Rules(f"{base.name} and {own_name}" if own else base.name, (*base.gates, *own), base.description)
