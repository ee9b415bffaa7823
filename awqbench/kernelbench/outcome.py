"""One row per check: what was checked and how it came out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "fail", "error", "skip"]


class CheckFailed(Exception):  # reads as the verdict it is
    """What was checked does not hold; the message says what was found."""


class Skipped(Exception):
    """The check does not apply here; the message says why."""


@dataclass(frozen=True)
class Row:
    """`error`: the check could not be carried out (a crash, a refused launch), which counts as a failure."""

    kernel: str
    check: str
    case: str
    status: Status
    detail: str
    seconds: float

    @property
    def bad(self) -> bool:
        """Whether it makes the whole run fail."""
        return self.status in {"fail", "error"}

    def line(self) -> str:
        """For a terminal."""
        return f"{self.status.upper():5} {self.kernel:14} {self.check:14} {self.case}  {self.detail}".rstrip()

    def json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def summary(rows: Iterable[Row]) -> dict[str, Any]:
    """Counts by status, and by check where something is bad."""
    rows = list(rows)
    counts = Counter(row.status for row in rows)
    return {
        **{status: counts.get(status, 0) for status in ("pass", "fail", "error", "skip")},
        "failing": sorted({f"{row.kernel}: {row.check}" for row in rows if row.bad}),
    }
