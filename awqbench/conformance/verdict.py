"""What a check says: pass with its numbers, fail with its numbers, or not offered."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Status = Literal["pass", "fail", "not offered"]


class Failed(Exception):
    """A promise is not kept; the message holds the numbers."""


class NotOffered(Exception):
    """The backend does not promise this; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome. `promise` is the sentence that was checked."""

    name: str
    promise: str
    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one backend, in the order they ran. str() is a table for people."""

    kind: str
    model: str
    description: dict[str, Any]
    findings: list[Finding]

    @property
    def failed(self) -> list[Finding]:
        """The promises that are not kept."""
        return [finding for finding in self.findings if finding.status == "fail"]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "conforms": not self.failed}

    def __str__(self) -> str:
        width = max(len(finding.name) for finding in self.findings)
        rows = [f"{f.status:<11}  {f.name:<{width}}  {f.message}" for f in self.findings]
        counts = {status: sum(f.status == status for f in self.findings) for status in ("pass", "fail", "not offered")}
        last = ", ".join(f"{count} {status}" for status, count in counts.items())
        return "\n".join([*rows, f"{self.kind} on {self.model}: {last}"])


def within(what: str, error: float, allowed: float, unit: str = "nats") -> str:
    """A sentence with the error and what is allowed. Raises Failed where it is larger, or not a number."""
    text = f"{what} {error:.2g} {unit} (allowed {allowed:.2g})"
    if not error <= allowed:
        raise Failed(text)
    return text


def largest(one: Any, other: Any) -> float:
    """Largest absolute difference of two arrays of one shape; infinite where the shapes differ, 0 where empty."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one - other).max()) if one.size else 0.0
