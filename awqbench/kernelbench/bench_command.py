"""`awqbench kernels bench` between parsing and printing."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from awqbench.errors import InvalidMeasurement, UserError, unknown_choice
from awqbench.kernelbench import machine, peers
from awqbench.kernelbench.attention_bench import OURS as ATTEND
from awqbench.kernelbench.attention_bench import attention_lines, benchmark_attention
from awqbench.kernelbench.bench import DeviceLost, Settings, benchmark
from awqbench.kernelbench.bench_options import BenchOptions
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.ceilings import measure_ceilings
from awqbench.kernelbench.compare import OURS, averages, best_variants, compare, is_ours
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.layers import our_layers
from awqbench.kernelbench.ours import our_kernels
from awqbench.kernelbench.report import averages_lines, layer_lines, measurement_lines, variant_lines
from awqbench.kernelbench.results import AttentionTime, Measurement, Session, load, save
from awqbench.kernelbench.timers import CpuTimer, GraphTimer
from awqbench.ops import cuda_build
from awqbench.resources import content

SETUP_SHARE = 0.2  # of the budget, that one peer may spend on packing and compiling


def bench_session(options: BenchOptions, device: torch.device, quiet: bool = False) -> dict[str, Any]:
    """Measure, save and print; returns the averages and where the record is.

    Raises UserError for options that make no sense and for CPU times that would go among measurements, and
    InvalidMeasurement where contenders kept breaking the device.
    """
    budget = Budget(options.budget)
    units = options.units()
    wanted = peers.choose(options.peers)
    path = _path(options.out, device)
    contenders: list[Implementation] = [*our_kernels(device, options.variants), *our_layers(device)]
    present, told = peers.installed(wanted, device)
    contenders += present
    left_out = options.excluded()
    contenders = [each for each in contenders if each.name not in left_out]
    state = machine.State(device)
    session = _resumed(path, options.session, device) if options.session else _begun(device, told, state)

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

    def keep_attention(measured: Sequence[AttentionTime]) -> None:
        session.after = state.read()
        save(path, session)
        for line in attention_lines(session, measured) if not quiet else ():
            print(line, flush=True)

    try:
        first = units[0]
        benchmark_attention(session, device, timer, budget, settings, first.mode, first.dtype, left_out, keep_attention)
        session.complete = benchmark(session, units, contenders, device, timer, budget, settings, keep, state.read)
    except KeyboardInterrupt:
        print(f"\nwhat was measured is in {path}; to go on: the same command with --session {session.id}", flush=True)
        raise
    except DeviceLost as lost:
        save(path, session)
        line = options.again(path, session.id, left_out | {lost.contender}, budget.left(), str(device), quiet)
        _again(line, path, left_out | {lost.contender})
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
    found["bad"] = [
        f"{each.contender} {each.n}x{each.k} g{each.group} M={each.m} {each.dtype}: {each.status}, {each.detail}"
        for each in session.measurements
        if is_ours(each) and each.status in {"wrong", "failed"}
    ]
    found["bad"] += [
        f"{each.contender} {each.model} context {each.context} batch {each.batch}: {each.status}, {each.detail}"
        for each in session.attention
        if each.contender.startswith(ATTEND) and each.status in {"wrong", "failed"}
    ]
    for line in found["bad"] if not quiet else ():
        print(f"FAILING {line}")
    if any(is_ours(each) and each.contender != OURS for each in session.measurements):
        best = best_variants(session.measurements)
        found["best_variants"] = [
            {"n": shape.n, "k": shape.k, "group": shape.group, "m": m, "dtype": dtype, "mode": mode, **asdict(each)}
            for (shape, m, dtype, mode), each in best.items()
        ]
        if not quiet:
            print("\n".join(["\nbest of our variants:", *variant_lines(best)]))
    if not quiet and (lines := layer_lines(session.measurements)):
        print("\n".join(["\na layer's product with what stands around it, in one call:", *lines]))
    if not quiet:
        print(f"\n{path}: {'complete' if session.complete else 'the budget ended first'}")
    return found


def _again(line: list[str], path: Path, left_out: set[str]) -> None:
    """Go on in a new process without the contender that broke this one's CUDA context; does not return."""
    if OURS in left_out:
        raise InvalidMeasurement(f"our own kernel broke the device; what was measured before is in {path}")
    told = f"the CUDA context is lost; going on without {', '.join(sorted(left_out))}"
    print(told, file=sys.stderr, flush=True)  # stdout may be for JSON alone
    os.execv(sys.executable, [sys.executable, "-P", "-m", "awqbench", *line])


def _path(out: Path | None, device: torch.device) -> Path:
    records, name = content("kernels") / "results", machine.device_name(device)
    path = out or records / f"{machine.slug(name)}.json"
    if device.type != "cuda" and path.resolve().is_relative_to(records.resolve()):
        raise UserError(f"times of a CPU are no measurements and don't go to {records}: name another file with --out")
    if path.is_file() and (theirs := load(path).device) != name:
        raise UserError(f"{path} holds measurements on {theirs}, not {name}: name another file with --out")
    return path


def _begun(device: torch.device, told: dict[str, str], state: machine.State) -> Session:
    small = {} if device.type == "cuda" else {"size": 2**22, "side": 64}
    hardware, ceilings = state.describe(), asdict(measure_ceilings(device, **small))
    if ceilings["nominal"] is None:  # newer CUDA tells torch no memory clock; NVML still does
        ceilings["nominal"] = hardware.get("memory_bandwidth")
    return Session(
        id=machine.now(), device=machine.device_name(device), clock="", versions=_versions(device),
        hardware=hardware, ceilings=ceilings, before=state.read(), peers=told,
        command=shlex.join(["awqbench", *sys.argv[1:]]),
    )  # fmt: skip


def _versions(device: torch.device) -> dict[str, str]:
    """Of all that figures depend on, our kernels' sources among it."""
    return machine.versions() | ({"kernels": cuda_build.identity()} if device.type == "cuda" else {})


def _resumed(path: Path, wanted: str, device: torch.device) -> Session:
    found = {session.id: session for session in load(path).sessions} if path.is_file() else {}
    if wanted not in found:
        raise unknown_choice("session", wanted, found)
    then, now = found[wanted].versions, _versions(device)
    if changed := [name for name in {**then, **now} if then.get(name) != now.get(name)]:
        told = ", ".join(f"{name} {then.get(name, 'absent')}, now {now.get(name, 'absent')}" for name in changed)
        raise UserError(f"session {wanted} was measured with others ({told}): begin a new one, without --session")
    return found[wanted]
