"""The benchmark itself: every contender on every problem, in turns, checked before it is timed, saved as it goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch

from awqbench.kernelbench import accuracy
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.plan import Unit
from awqbench.kernelbench.problem import DTYPES, Problem, random_problem
from awqbench.kernelbench.reference import Reference, reference
from awqbench.kernelbench.results import Measurement, Session
from awqbench.kernelbench.runner import device_lost
from awqbench.kernelbench.schedule import copies, launches, turns
from awqbench.kernelbench.series import series
from awqbench.kernelbench.timers import Timer
from awqbench.telemetry import throttle

log = logging.getLogger(__name__)

ENOUGH_SECONDS = 0.1  # of replays in one run: large batches get by with fewer than `replays`
FEWEST_REPLAYS = 5
HOT = set(throttle.names(throttle.THROTTLING))  # reasons for low clocks that make a time untrustworthy


@dataclass(frozen=True)
class Settings:
    """`cache`: bytes of the last cache. At least `least_launches` in a replay, `replays` in a run, `runs` each.
    `setup_limit`: seconds that one peer may spend on packing and compiling in all, before it sits out the rest."""

    cache: int
    runs: int = 3
    replays: int = 20
    least_launches: int = 50
    setup_limit: float = inf


class DeviceLost(Exception):  # a verdict on the device, not a mistake of the caller
    """A contender broke the CUDA context; what was measured before is saved. `contender`: which."""

    def __init__(self, contender: str) -> None:
        super().__init__(contender)
        self.contender = contender


Progress = Callable[[list[Measurement]], None]
Observe = Callable[[], dict[str, Any]]  # the device's state: machine.State.read


def benchmark(
    session: Session,
    units: Sequence[Unit],
    contenders: Sequence[Implementation],
    device: torch.device,
    timer: Timer,
    budget: Budget,
    settings: Settings,
    keep: Progress,
    observe: Observe,
) -> bool:
    """Measure what the session lacks and append it; `keep` is called after each problem with what it gave.

    Returns whether the budget sufficed. Raises DeviceLost.
    """
    # What only a contender that is left out since knows of is not measured.
    names = {contender.name for contender in contenders}
    done = {measured.problem for measured in session.measurements if measured.contender in names}
    setup: dict[str, float] = {}
    for unit in units:
        left = [m for m in unit.batches if (unit.shape, m, unit.dtype, unit.mode) not in done]
        if budget.spent():
            return False
        if not left:
            continue
        problem = random_problem(unit.shape, max(left), DTYPES[unit.dtype], device, seed=1)
        expected = reference(problem)
        bench = _UnitBench(unit, problem, expected, timer, settings, setup)
        for m in left:
            if budget.spent():
                return False
            measured = bench.at(m, contenders, observe)
            session.measurements.extend(measured)
            keep(measured)
            if bench.lost is not None:
                raise DeviceLost(bench.lost)
        del bench, problem, expected
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


class _UnitBench:
    """One weight, packed once per contender and copied until a cache can't hold it."""

    def __init__(
        self, unit: Unit, problem: Problem, expected: Reference, timer: Timer, settings: Settings,
        setup: dict[str, float],
    ) -> None:  # fmt: skip
        self.unit, self.problem, self.expected = unit, problem, expected
        self.timer, self.settings, self.setup = timer, settings, setup
        self.packed: dict[str, list[Any]] = {}
        self.lost: str | None = None
        self.told: set[str] = set()

    def at(self, m: int, contenders: Sequence[Implementation], observe: Observe) -> list[Measurement]:
        """All contenders on m rows."""
        found: dict[str, Measurement] = {}
        replays: dict[str, Callable[[int], list[float]]] = {}
        errors: dict[str, float] = {}
        took: dict[str, float] = {}
        for contender in contenders:
            name = contender.name
            if reason := contender.refusal(self.unit.shape, m, self.problem.x.dtype):
                found[name] = self._measurement(name, m, "refused", reason)
                continue
            if isinstance(contender, Peer) and self.setup.get(name, 0.0) > self.settings.setup_limit:
                found[name] = self._measurement(name, m, "skipped", f"{self.setup[name]:.0f} s of setup so far")
                continue
            began = time.monotonic()
            try:
                error, reason = self._check(contender, m)
                if reason:
                    found[name] = self._measurement(name, m, "wrong", reason, error=error)
                    continue
                errors[name] = error
                replays[name] = self.timer.prepare(self._launches(contender, m), self.unit.mode)
            except Exception as failure:
                if name not in self.told:  # the whole of it once, for whoever has to mend it
                    self.told.add(name)
                    log.warning("%s on %s M=%s", name, self.unit.shape, m, exc_info=True)
                first = str(failure).splitlines()[0] if str(failure) else ""
                found[name] = self._measurement(name, m, "failed", f"{type(failure).__name__}: {first}")
                if device_lost(self.problem.x.device):
                    self.lost = name
                    return [found[name]]  # the others' turn comes without it
            finally:
                took[name] = time.monotonic() - began
                self.setup[name] = self.setup.get(name, 0.0) + took[name]
        found |= self._time(m, replays, errors)
        state = observe()
        clock, hot = state.get("sm_clock_mhz"), HOT & set(state.get("throttle_reasons", ()))
        for name in replays:
            found[name] = replace(found[name], setup=round(took[name], 2), sm_clock_mhz=clock, throttled=bool(hot))
        return [found[contender.name] for contender in contenders]

    def _time(
        self, m: int, replays: dict[str, Callable[[int], list[float]]], errors: dict[str, float]
    ) -> dict[str, Measurement]:
        runs: dict[str, list[list[float]]] = {name: [] for name in replays}
        counts: dict[str, int] = {}
        for name, replay in replays.items():
            us = max(min(replay(2)), 1e-3) * self._launch_count(name)
            counts[name] = int(min(self.settings.replays, max(FEWEST_REPLAYS, ENOUGH_SECONDS * 1e6 / us)))
        for name in turns(list(replays), self.settings.runs):
            runs[name].append(replays[name](counts[name]))
        found = {}
        for name, times in runs.items():
            result = series(times)
            found[name] = self._measurement(
                name, m, "timed", runs=tuple(round(us, 3) for us in result.runs), spread=round(result.spread, 3),
                error=errors[name], copies=len(self.packed[name]), launches=self._launch_count(name),
            )  # fmt: skip
        return found

    def _check(self, contender: Implementation, m: int) -> tuple[float, str | None]:
        """Relative error, and why the result is wrong, if it is."""
        x = self.problem.x[:m]
        y = contender.run(self._first(contender), x)
        if y.shape != (m, self.unit.shape.n) or y.dtype != x.dtype:
            return float("nan"), f"a result of {tuple(y.shape)} and {y.dtype}"
        found = accuracy.error(y, contender.expected(self.problem, m) or self.expected.rows(m))
        if isinstance(contender, Peer):
            limit = contender.allowed_error(x.dtype)
            if found.nonfinite:
                return found.relative, f"{found.nonfinite} elements are not finite"
            return found.relative, f"relative error {found.relative:.2e}" if found.relative > limit else None
        return found.relative, accuracy.too_wrong(found, x.dtype)

    def _first(self, contender: Implementation) -> Any:
        if contender.name not in self.packed:
            self.packed[contender.name] = [contender.pack(self.problem.weights, None, self.problem.x.dtype)]
        return self.packed[contender.name][0]

    def _launches(self, contender: Implementation, m: int) -> list[Callable[[], object]]:
        held = self.packed[contender.name]
        count = copies(contender.bytes_of(held[0]), self.settings.cache)
        while len(held) < count:
            held.append(self._another(contender))
        x = self.problem.x[:m]
        return [
            lambda weights=held[i % count]: contender.run(weights, x)  # type: ignore[misc]
            for i in range(self._launch_count(contender.name))
        ]

    def _another(self, contender: Implementation) -> Any:
        try:
            return contender.copy(self.packed[contender.name][0])
        except Exception:  # objects of others may not be copied
            return contender.pack(self.problem.weights, None, self.problem.x.dtype)

    def _launch_count(self, name: str) -> int:
        return launches(len(self.packed[name]), self.settings.least_launches)

    def _measurement(self, name: str, m: int, status: str, detail: str = "", **more: Any) -> Measurement:
        shape = self.unit.shape
        return Measurement(
            name, shape.n, shape.k, shape.group, m, self.unit.dtype, self.unit.mode, status, detail, **more
        )
