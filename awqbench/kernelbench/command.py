"""What the commands do between parsing and printing."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from awqbench.errors import InvalidMeasurement, UserError, unknown_choice
from awqbench.kernelbench import machine, peers, plan, supervise
from awqbench.kernelbench.bench import DeviceLost, Settings, benchmark
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.ceilings import measure_ceilings
from awqbench.kernelbench.compare import averages, best_variants, compare
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.ours import our_kernels
from awqbench.kernelbench.outcome import Row, summary
from awqbench.kernelbench.problem import DTYPES
from awqbench.kernelbench.report import averages_lines, measurement_lines, variant_lines
from awqbench.kernelbench.results import Measurement, Session, load, save
from awqbench.kernelbench.runner import items, run_here
from awqbench.kernelbench.sanitizer import sanitize
from awqbench.kernelbench.shapes import parse_shapes
from awqbench.kernelbench.timers import MODES, CpuTimer, GraphTimer
from awqbench.resources import content

SETUP_SHARE = 0.2  # of the budget, that one peer may spend on packing and compiling


def check_rows(
    device: torch.device, only: str | None, quick: bool, variants: str, sanitizer: bool, budget: Budget
) -> Iterator[Row]:
    """All rows of a check. On a GPU in a process of their own, which may die; what the budget left out is a row too."""
    kernels = our_kernels(device, variants)  # builds them, and says what hinders that, before any process starts
    work = items(kernels, quick=quick, only=only)
    done = 0
    if device.type == "cuda":
        options = ["--device", str(device), "--variants", variants]
        options += ["--quick"] if quick else []
        options += ["--only", only] if only else []
        rows = supervise.supervise(options, budget)
    else:
        rows = run_here(work, device, budget)
    for row in rows:
        done += 1
        yield row
    if done < len(work):
        yield Row(
            "all", "budget", f"{len(work) - done} of {len(work)} checks", "skip", "not reached in the budget", 0.0
        )
    if sanitizer and device.type == "cuda":
        yield from sanitize(budget)


def write_rows(path: Path, device: torch.device, rows: Sequence[Row]) -> None:
    """The rows so far with what they ran on, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "device": machine.device_name(device),
        "date": _now(),
        "versions": machine.versions(),
        "summary": summary(rows),
        "rows": [asdict(row) for row in rows],
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


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


def bench_session(options: BenchOptions, device: torch.device, quiet: bool = False) -> dict[str, Any]:
    """Measure, save and print; returns the averages and where the record is.

    Raises UserError for options that make no sense and for CPU times that would go among measurements, and
    InvalidMeasurement where contenders kept breaking the device.
    """
    budget = Budget(options.budget)
    units = _units(options)
    wanted = peers.choose(options.peers)
    path = _path(options.out, device)
    contenders: list[Implementation] = [*our_kernels(device, options.variants)]
    present, told = peers.installed(wanted, device)
    contenders += present
    left_out = {name.strip() for name in options.without.split(",") if name.strip()}
    contenders = [each for each in contenders if each.name not in left_out]
    state = machine.State(device)
    session = _resumed(path, options.session) if options.session else _begun(device, told, state)

    def keep(measured: Sequence[Measurement]) -> None:
        session.after = state.read()
        save(path, session)
        if not quiet:
            for line in measurement_lines(session, measured):
                print(line, flush=True)

    if not quiet:
        for name, note in told.items():
            print(f"{name}: {note}")
        print(f"ceilings: {session.ceilings}", flush=True)
    timer = GraphTimer(device) if device.type == "cuda" else CpuTimer()
    session.clock = timer.clock
    patience = budget.left() * SETUP_SHARE
    settings = Settings(machine.cache_bytes(device), options.runs, setup_limit=patience)
    if device.type != "cuda":
        settings = replace(settings, least_launches=2, replays=3)
    try:
        session.complete = benchmark(session, units, contenders, device, timer, budget, settings, keep, state.read)
    except DeviceLost as lost:
        save(path, session)
        _again(options, path, session, left_out | {lost.contender}, budget)
    finally:
        session.after = state.read()
        save(path, session)
    return _told(path, session, quiet)


def _told(path: Path, session: Session, quiet: bool) -> dict[str, Any]:
    compared = compare(session)
    found: dict[str, Any] = {"record": str(path), "session": session.id, "complete": session.complete, "averages": {}}
    for dtype, mode in dict.fromkeys((each.dtype, each.mode) for each in compared):
        chosen = averages([each for each in compared if (each.dtype, each.mode) == (dtype, mode)])
        found["averages"][f"{dtype}, {mode}"] = [asdict(each) for each in chosen]
        if not quiet:
            print("\n".join([f"\n{dtype}, {mode}: a peer's time over ours", *averages_lines(chosen)]))
    if any("/" in each.contender for each in session.measurements):
        best = best_variants(session.measurements)
        found["best_variants"] = [
            {"n": shape.n, "k": shape.k, "group": shape.group, "m": m, "dtype": dtype, "mode": mode, **asdict(each)}
            for (shape, m, dtype, mode), each in best.items()
        ]
        if not quiet:
            print("\n".join(["\nbest of our variants:", *variant_lines(best)]))
    if not quiet:
        print(f"\n{path}: {'complete' if session.complete else 'the budget ended first'}")
    return found


def _again(options: BenchOptions, path: Path, session: Session, left_out: set[str], budget: Budget) -> None:
    """Go on in a new process without the contender that broke this one's CUDA context; does not return."""
    if "ours" in left_out:
        raise InvalidMeasurement(f"our own kernel broke the device; what was measured before is in {path}")
    left = budget.left()
    print(f"the CUDA context is lost; going on without {', '.join(sorted(left_out))}", flush=True)
    again = ["kernels", "bench", "--out", str(path), "--session", session.id, "--without", ",".join(sorted(left_out))]
    again += ["--peers", options.peers, "--variants", options.variants, "--group-size", str(options.group_size)]
    again += ["--dtypes", options.dtypes, "--modes", options.modes, "--runs", str(options.runs)]
    again += ["--shapes", options.shapes] if options.shapes else []
    again += ["--batches", options.batches] if options.batches else []
    again += ["--budget", str(max(1.0, left))] if left != float("inf") else []
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "awqbench", *again])


def _units(options: BenchOptions) -> list[plan.Unit]:
    dtypes = _among("dtype", options.dtypes, DTYPES)
    modes = _among("mode", options.modes, MODES)
    shapes = parse_shapes(options.shapes or plan.DEFAULT_SHAPES, options.group_size)
    if options.batches is None:
        batches: tuple[int, ...] = plan.DEFAULT_BATCHES
    else:
        pieces = [piece.strip() for piece in options.batches.split(",") if piece.strip()]
        if wrong := [piece for piece in pieces if not piece.isdigit() or not int(piece)]:
            raise UserError(f"batch size {wrong[0]!r} (allowed: whole numbers from 1, comma-separated)")
        batches = tuple(dict.fromkeys(int(piece) for piece in pieces))
    if not shapes or not batches:
        raise UserError("nothing to measure: name at least one shape and one batch size")
    return plan.plan(shapes, batches, dtypes, modes)


def _among(what: str, text: str, allowed: Any) -> list[str]:
    chosen = list(dict.fromkeys(piece.strip() for piece in text.split(",") if piece.strip()))
    for each in chosen:
        if each not in allowed:
            raise unknown_choice(what, each, allowed)
    if not chosen:
        raise UserError(f"no {what} is named (allowed: {', '.join(allowed)})")
    return chosen


def _path(out: Path | None, device: torch.device) -> Path:
    records = content("kernels") / "results"
    path = out or records / f"{machine.slug(machine.device_name(device))}.json"
    if device.type != "cuda" and path.resolve().is_relative_to(records.resolve()):
        raise UserError(f"times of a CPU are no measurements and don't go to {records}: name another file with --out")
    return path


def _begun(device: torch.device, told: dict[str, str], state: machine.State) -> Session:
    small = {} if device.type == "cuda" else {"size": 2**22, "side": 64}
    return Session(
        id=_now(), device=machine.device_name(device), clock="", versions=machine.versions(),
        hardware=state.describe(), ceilings=asdict(measure_ceilings(device, **small)), before=state.read(), peers=told,
        command=shlex.join(["awqbench", *sys.argv[1:]]),
    )  # fmt: skip


def _resumed(path: Path, wanted: str) -> Session:
    found = {session.id: session for session in load(path).sessions} if path.is_file() else {}
    if wanted not in found:
        raise unknown_choice("session", wanted, found)
    return found[wanted]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
