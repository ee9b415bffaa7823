"""The options of `awqbench kernels bench`, and what they ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from awqbench.errors import UserError, unknown_choice
from awqbench.kernelbench import plan
from awqbench.kernelbench.problem import DTYPES
from awqbench.kernelbench.shapes import parse_shapes
from awqbench.kernelbench.timers import MODES


@dataclass(frozen=True)
class BenchOptions:
    """The options of `awqbench kernels bench`, as given."""

    shapes: str | None = None
    batches: str | None = None
    peers: str = "all"
    variants: str = "default"
    group_size: int = 128
    dtypes: str = "fp16,bf16"
    modes: str = ",".join(MODES)
    runs: int = 3
    budget: float | None = None
    out: Path | None = None
    session: str | None = None
    without: str = ""

    def units(self) -> list[plan.Unit]:
        """The plan. UserError for options that make no sense."""
        dtypes = _among("dtype", self.dtypes, DTYPES)
        modes = _among("mode", self.modes, MODES)
        shapes = parse_shapes(self.shapes or plan.DEFAULT_SHAPES, self.group_size)
        if self.batches is None:
            batches: tuple[int, ...] = plan.DEFAULT_BATCHES
        else:
            pieces = [piece.strip() for piece in self.batches.split(",") if piece.strip()]
            if wrong := [piece for piece in pieces if not piece.isdigit() or not int(piece)]:
                raise UserError(f"batch size {wrong[0]!r} (allowed: whole numbers from 1, comma-separated)")
            batches = tuple(dict.fromkeys(int(piece) for piece in pieces))
        if not shapes or not batches:
            raise UserError("nothing to measure: name at least one shape and one batch size")
        return plan.plan(shapes, batches, dtypes, modes)

    def excluded(self) -> set[str]:
        """The names of `without`."""
        return {name.strip() for name in self.without.split(",") if name.strip()}

    def again(
        self, path: Path, session: str, without: set[str], budget: float, device: str, as_json: bool
    ) -> list[str]:
        """The command line that goes on with a session in a new process; `budget` is infinite for none."""
        line = ["kernels", "bench", "--out", str(path), "--session", session, "--without", ",".join(sorted(without))]
        line += ["--device", device, *(["--json"] if as_json else [])]
        line += ["--peers", self.peers, "--variants", self.variants, "--group-size", str(self.group_size)]
        line += ["--dtypes", self.dtypes, "--modes", self.modes, "--runs", str(self.runs)]
        line += ["--shapes", self.shapes] if self.shapes else []
        line += ["--batches", self.batches] if self.batches else []
        return line + (["--budget", str(max(1.0, budget))] if budget != float("inf") else [])


def _among(what: str, text: str, allowed: Iterable[str]) -> list[str]:
    chosen = list(dict.fromkeys(piece.strip() for piece in text.split(",") if piece.strip()))
    for each in chosen:
        if each not in allowed:
            raise unknown_choice(what, each, allowed)
    if not chosen:
        raise UserError(f"no {what} is named (allowed: {', '.join(allowed)})")
    return chosen
