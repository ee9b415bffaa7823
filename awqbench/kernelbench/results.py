"""The record of measurements, `kernels/results/<device>.json`: sessions, each with all it takes to judge its figures.

Figures are compared within a session only: another day's clocks, driver or neighbour are another measurement.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from awqbench.errors import UserError
from awqbench.kernelbench.problem import Shape
from awqbench.kernelbench.series import Series
from awqbench.record.files import write_atomic

SCHEMA = 1


class Timed:
    """What was timed, or was to be."""

    status: str
    runs: tuple[float, ...]
    spread: float

    @property
    def series(self) -> Series | None:
        """The times, where there are any."""
        return Series(self.runs, self.spread) if self.status == "timed" else None


@dataclass(frozen=True)
class Measurement(Timed):
    """One contender on one problem. `status`: `timed`, or why it has no times: `wrong` (its result fails the check),
    `refused` (it does not take the problem), `failed` or `skipped`, with `detail`. `error` is relative, against
    float64; `setup` the seconds that packing, checking, compiling and capturing took; `sm_clock_mhz` and `throttled`
    are read right after the last run."""

    contender: str
    n: int
    k: int
    group: int
    m: int
    dtype: str
    mode: str
    status: str
    detail: str = ""
    runs: tuple[float, ...] = ()
    spread: float = 0.0
    error: float | None = None
    copies: int = 0
    launches: int = 0
    setup: float = 0.0
    sm_clock_mhz: float | None = None
    throttled: bool = False

    @property
    def problem(self) -> tuple[Shape, int, str, str]:
        """Shape, m, dtype and mode: what must agree for two measurements to be compared."""
        return Shape(self.n, self.k, self.group), self.m, self.dtype, self.mode


@dataclass(frozen=True)
class AttentionTime(Timed):
    """The attention of one decoding step by one contender. `bytes`: keys and values, read once; `status`, `runs` and
    `spread` as of a Measurement."""

    contender: str
    model: str
    heads: int
    key_heads: int
    size: int
    batch: int
    context: int
    dtype: str
    mode: str
    bytes: int
    status: str
    detail: str = ""
    runs: tuple[float, ...] = ()
    spread: float = 0.0


@dataclass
class Session:
    """One run of the benchmark. `id` is its beginning, in UTC; `peers` says of each why it is missing or how it was
    asked; `before` and `after` are the device's state."""

    id: str
    device: str
    clock: str
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, float | None] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)
    command: str = ""
    complete: bool = False
    measurements: list[Measurement] = field(default_factory=list)
    attention: list[AttentionTime] = field(default_factory=list)


@dataclass
class Results:
    """All sessions on one kind of device, oldest first."""

    device: str
    sessions: list[Session] = field(default_factory=list)
    schema: int = SCHEMA

    def merge(self, session: Session) -> None:
        """Add a session, or replace the one of the same id."""
        if session.device != self.device:
            raise ValueError(f"a session of {session.device} among those of {self.device}")
        kept = [each for each in self.sessions if each.id != session.id]
        self.sessions = sorted([*kept, session], key=lambda each: each.id)

    def to_json(self) -> str:
        """As text, a measurement a line; the same sessions give the same text."""
        sessions = []
        for session in map(asdict, self.sessions):
            lists = ""
            for name in ("attention", "measurements"):
                lines = ",\n   ".join(json.dumps(each, ensure_ascii=False) for each in session.pop(name))
                if lines or name == "measurements":
                    lists += f',\n   "{name}": [\n   {lines}\n  ]'
            head = json.dumps(session, indent=2, ensure_ascii=False).removesuffix("\n}").replace("\n", "\n ")
            sessions.append(f" {head}{lists}}}")
        head = f'"schema": {self.schema},\n "device": {json.dumps(self.device)}'
        listed = ",\n".join(sessions)
        return f'{{{head},\n "sessions": [\n{listed}\n ]}}\n'


def from_json(text: str) -> Results:
    """The inverse of `to_json`. UserError for another schema or a file that is no record."""
    try:
        data = json.loads(text)
        if (schema := data["schema"]) != SCHEMA:
            raise UserError(f"kernel measurements of schema {schema!r} (allowed: {SCHEMA})")
        return Results(data["device"], [_session(each) for each in data["sessions"]])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"not a record of kernel measurements: {type(error).__name__}: {error}") from error


def load(path: Path) -> Results:
    """A record from its file."""
    return from_json(path.read_text(encoding="utf-8"))


def save(path: Path, session: Session) -> None:
    """Merge a session into a file, whole or not at all."""
    results = load(path) if path.is_file() else Results(session.device)
    results.merge(session)
    write_atomic(path, results.to_json())


def by_problem(measurements: Iterable[Measurement]) -> dict[tuple[Shape, int, str, str], dict[str, Measurement]]:
    """Measurements that may be compared with each other, by contender."""
    grouped: dict[tuple[Shape, int, str, str], dict[str, Measurement]] = {}
    for each in measurements:
        grouped.setdefault(each.problem, {})[each.contender] = each
    return grouped


def _session(data: dict[str, Any]) -> Session:
    measured = [Measurement(**{**each, "runs": tuple(each["runs"])}) for each in data["measurements"]]
    attention = [AttentionTime(**{**each, "runs": tuple(each["runs"])}) for each in data.get("attention", ())]
    return Session(**{**data, "measurements": measured, "attention": attention})
