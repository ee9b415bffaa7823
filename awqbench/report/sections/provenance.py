"""Where the figures come from: enough to run it again and to notice when something else was run."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from awqbench.record.reader import Run


@dataclass(frozen=True)
class Provenance:
    """Tables of plain text."""

    model: dict[str, str]
    data: dict[str, str]
    packages: dict[str, str]
    hardware: dict[str, str]
    hashes: dict[str, str]
    command: str
    spec: str


def provenance(run: Run) -> Provenance:
    """The manifest as text; nested values are flattened to dotted keys."""
    m = run.manifest
    declared = m.declared_policy_hash or m.policy_hash
    hashes = {"spec": m.spec_hash, "policy (the limits) declared when the run began": declared}
    if run.verdict:
        hashes["policy used by the verdict"] = run.verdict.policy_hash
    return Provenance(
        model=flat(m.model),
        data=dict(m.data),
        packages=dict(m.packages),
        hardware=flat(m.hardware),
        hashes=hashes,
        command=shlex.join(m.command),
        spec=json.dumps(m.spec, indent=2, ensure_ascii=False),
    )


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables as {dotted key: text}; lists are joined, empty values left out."""
    result: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            result[f"{prefix}{key}"] = ", ".join(map(str, value)) or "none"
        elif isinstance(value, bool):
            result[f"{prefix}{key}"] = "yes" if value else "no"
        elif value is not None and value != "":
            result[f"{prefix}{key}"] = str(value)
    return result
