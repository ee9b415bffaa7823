"""The whole benchmark on a CPU, on tiny shapes: what is timed, what is not, what survives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from kernelbench_planted import Faithful, RaisesOnWide, StaleZeroPoints
from torch import Tensor

from awqbench.errors import InvalidMeasurement, UserError
from awqbench.kernelbench import bench as bench_module
from awqbench.kernelbench import bench_command as command
from awqbench.kernelbench.bench import DeviceLost, Settings, benchmark
from awqbench.kernelbench.bench_command import bench_session
from awqbench.kernelbench.bench_options import BenchOptions
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.peers.cublas import Cublas
from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.plan import Unit
from awqbench.kernelbench.problem import Shape
from awqbench.kernelbench.results import Measurement, Session, load, save
from awqbench.kernelbench.timers import CpuTimer, Timer

CPU = torch.device("cpu")
SHAPE = Shape(72, 96, 32)
SETTINGS = Settings(cache=100_000, runs=3, replays=5, least_launches=4)


class Named(Faithful):
    def __init__(self, name: str) -> None:
        self.name = name


class WrongPeer(StaleZeroPoints, Peer):
    name = "wrong"


class HalfWeights(Cublas):
    """A peer that refuses one size and is right on others."""

    name = "picky"

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        return "one row" if m == 1 else None


class FakeTimer(Timer):
    """Counts launches and turns; time is what the test says."""

    clock = "made up"

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.prepared: list[int] = []

    def prepare(self, launches: Sequence[Callable[[], object]], mode: str) -> Callable[[int], list[float]]:
        for launch in launches:
            launch()
        which = len(self.prepared)
        self.prepared.append(len(launches))

        def replays(count: int) -> list[float]:
            if count > 2:
                self.turns.append(which)
            return [10.0 + which] * count

        return replays


def run(
    contenders: Sequence[Implementation], timer: Timer, batches: tuple[int, ...] = (1, 3), **more: Any
) -> tuple[Session, list[list[Measurement]], bool]:
    session = more.pop("session", None) or Session("1", "CPU", timer.clock)
    kept: list[list[Measurement]] = []
    units = [Unit(SHAPE, "fp16", "back-to-back", batches)]
    settings = more.pop("settings", SETTINGS)
    budget = more.pop("budget", Budget(None))
    done = benchmark(session, units, contenders, CPU, timer, budget, settings, kept.append, dict)
    return session, kept, done


def test_contenders_take_turns_over_rotating_copies() -> None:
    timer = FakeTimer()
    session, kept, done = run([Named("ours"), Named("other")], timer, (3,))
    assert done
    assert timer.turns == [0, 1, 1, 0, 0, 1]
    ours, other = session.measurements
    assert (ours.contender, ours.runs, ours.spread, other.runs) == ("ours", (10.0,) * 3, 0.0, (11.0,) * 3)
    assert ours.copies * 72 * 96 * 4 >= 3 * SETTINGS.cache  # its dense float32 weights alone
    assert ours.launches % ours.copies == 0
    assert kept == [session.measurements]
    assert ours.error is not None
    assert 0 < ours.error < 1e-3


def test_copies_are_other_memory() -> None:
    seen: set[int] = set()

    class Watching(Faithful):
        def run(self, packed: Any, x: Tensor) -> Tensor:
            seen.add(packed["dense"].data_ptr())
            return super().run(packed, x)

    session, *_ = run([Watching()], FakeTimer(), (2,))
    assert len(seen) == session.measurements[0].copies > 2


def test_what_is_wrong_refused_or_broken_is_told_and_never_timed() -> None:
    timer = FakeTimer()
    session, *_ = run([Named("ours"), WrongPeer(), HalfWeights(), RaisesOnWide()], timer, (1, 17))
    found = {(each.contender, each.m): each for each in session.measurements}
    assert [found["wrong", m].status for m in (1, 17)] == ["wrong", "wrong"]
    assert found["wrong", 1].detail.startswith("relative error")
    assert (found["picky", 1].status, found["picky", 1].detail) == ("refused", "one row")
    assert (found["picky", 17].status, found["faithful", 1].status) == ("timed", "timed")
    assert found["faithful", 17].status == "failed"
    assert "too many resources" in found["faithful", 17].detail
    assert all((each.runs == ()) == (each.status != "timed") for each in session.measurements)


def test_a_wrong_kernel_of_ours_is_held_to_the_strict_bounds() -> None:
    class Sloppy(Named):
        def write(self, y: Tensor, value: Tensor) -> None:
            y.copy_(value * 1.002)

    class SloppyPeer(Sloppy, Peer):
        pass

    session, *_ = run([Sloppy("ours"), SloppyPeer("peer")], FakeTimer(), (3,))
    assert [each.status for each in session.measurements] == ["wrong", "timed"]


def test_the_budget_ends_between_problems() -> None:
    now = iter(range(100))
    session, kept, done = run([Named("ours")], FakeTimer(), (1, 2, 3), budget=Budget(3.5, clock=lambda: next(now)))
    assert not done
    assert len(kept) < 3
    assert len(session.measurements) == len(kept)
    more, _, done = run([Named("ours")], FakeTimer(), (1, 2, 3), session=session)
    assert done
    assert [each.m for each in more.measurements] == [1, 2, 3]


def test_a_peer_that_takes_too_long_sits_out_the_rest_and_ours_does_not() -> None:
    session, *_ = run([Named("ours"), HalfWeights()], FakeTimer(), (2, 3), settings=Settings(1000, setup_limit=0.0))
    assert [(each.contender, each.m, each.status) for each in session.measurements] == [
        ("ours", 2, "timed"), ("picky", 2, "timed"), ("ours", 3, "timed"), ("picky", 3, "skipped"),
    ]  # fmt: skip


def test_a_lost_device_is_told_with_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "device_lost", lambda device: True)
    session = Session("1", "CPU", "")
    with pytest.raises(DeviceLost) as lost:
        run([Named("ours"), RaisesOnWide(), Named("later")], FakeTimer(), (1, 17, 18), session=session)
    assert lost.value.contender == "faithful"
    assert [(each.m, each.contender, each.status) for each in session.measurements] == [
        (1, "ours", "timed"), (1, "faithful", "timed"), (1, "later", "timed"), (17, "faithful", "failed"),
    ]  # fmt: skip
    # Without the culprit, the others' turn comes on the problem that it broke off.
    run([Named("ours"), Named("later")], FakeTimer(), (1, 17, 18), session=session)
    assert [(each.m, each.contender, each.status) for each in session.measurements][4:] == [
        (17, "ours", "timed"), (17, "later", "timed"), (18, "ours", "timed"), (18, "later", "timed"),
    ]  # fmt: skip


def test_end_to_end_on_a_cpu_is_marked_and_kept_out_of_the_records(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    options = BenchOptions("72x96,64x64", "1,17", group_size=32, dtypes="fp16", modes="back-to-back", out=path)
    told = bench_session(options, CPU, quiet=True)
    (session,) = load(path).sessions
    assert (session.device, session.complete, told["complete"]) == ("CPU", True, True)
    assert "not a measurement of any kernel" in session.clock
    assert session.peers["marlin"] == "missing: needs a GPU"
    layers = {"layer/taken-in", "layer/apart", "layer/separate"}
    assert {each.contender for each in session.measurements} == {"ours", "cublas", *layers}
    assert {each.status for each in session.measurements if each.contender not in layers} == {"timed"}
    assert {each["peer"] for each in told["averages"]["fp16, back-to-back"]} == {"cublas"}
    assert "best_variants" not in told  # there was none
    with pytest.raises(UserError, match="no measurements and don't go to"):
        bench_session(BenchOptions("64x64", group_size=32), CPU)


def test_a_wrong_kernel_of_ours_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = StaleZeroPoints()
    wrong.name = "ours"
    monkeypatch.setattr(command, "our_kernels", lambda device, variants: [wrong])
    options = BenchOptions(
        "72x96", "1", group_size=32, dtypes="fp16", modes="isolated", out=tmp_path / "x.json", peers="none"
    )
    (line,) = bench_session(options, CPU, quiet=True)["bad"]
    assert line.startswith("ours 72x96 g32 M=1 fp16: wrong, relative error")


def test_ctrl_c_keeps_what_was_measured_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(session: Session, *_: object) -> bool:
        session.measurements.append(Measurement("ours", 64, 64, 32, 1, "fp16", "isolated", "refused", "no"))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "benchmark", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench_session(BenchOptions("64x64", "1", group_size=32, out=tmp_path / "x.json"), CPU, quiet=True)
    (session,) = load(tmp_path / "x.json").sessions
    assert len(session.measurements) == 1
    assert f"--session {session.id}" in capsys.readouterr().out


def test_a_session_goes_on_by_its_id(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    first = BenchOptions("64x64", "1", group_size=32, dtypes="fp16", modes="back-to-back", out=path, peers="none")
    told = bench_session(first, CPU, quiet=True)
    again = BenchOptions(
        "64x64", "1,2", group_size=32, dtypes="fp16", modes="back-to-back", out=path, session=told["session"]
    )
    bench_session(again, CPU, quiet=True)
    (session,) = load(path).sessions
    plain = [(each.m, each.contender) for each in session.measurements if not each.contender.startswith("layer/")]
    assert plain == [(1, "ours"), (2, "ours"), (2, "cublas")]
    with pytest.raises(UserError, match="unknown session 'x'"):
        bench_session(BenchOptions("64x64", "1", group_size=32, out=path, session="x"), CPU)
    session.versions["torch"] = "2.0"
    save(path, session)
    with pytest.raises(UserError, match=rf"measured with others \(torch 2.0, now {re.escape(torch.__version__)}\)"):
        bench_session(again, CPU)  # another torch's cuBLAS beside today's kernels would be no comparison


def test_a_session_does_not_go_on_with_other_kernels_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, gpu = tmp_path / "x.json", torch.device("cuda")
    monkeypatch.setattr(command.cuda_build, "identity", lambda: "one.so")
    save(path, Session("1", "GPU", "", versions=command._versions(gpu)))
    assert command._resumed(path, "1", gpu).id == "1"
    monkeypatch.setattr(command.cuda_build, "identity", lambda: "other.so")
    with pytest.raises(UserError, match=r"with others \(kernels one.so, now other.so\)"):
        command._resumed(path, "1", gpu)


def test_another_devices_record_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    save(path, Session("1", "NVIDIA H100", ""))
    with pytest.raises(UserError, match="holds measurements on NVIDIA H100, not CPU: name another file"):
        bench_session(BenchOptions("64x64", "1", group_size=32, out=path), CPU)


def test_after_a_lost_device_a_new_process_goes_on_without_the_culprit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    culprit = ["cublas"]

    def broken(*args: object, **more: object) -> bool:
        raise DeviceLost(culprit[0])

    monkeypatch.setattr(command, "benchmark", broken)
    monkeypatch.setattr(command.os, "execv", lambda program, arguments: started.append(arguments))
    options = BenchOptions("64x64", "1", group_size=32, out=tmp_path / "cpu.json", budget=100.0)
    bench_session(options, CPU, quiet=True)
    (arguments,) = started
    assert arguments[arguments.index("--without") + 1] == "cublas"
    assert arguments[arguments.index("--session") + 1] == load(tmp_path / "cpu.json").sessions[0].id
    assert 0 < float(arguments[arguments.index("--budget") + 1]) <= 100
    assert arguments[arguments.index("--device") + 1] == "cpu"  # another device would be another measurement
    assert "--json" in arguments
    culprit[0] = "ours"
    with pytest.raises(InvalidMeasurement, match="our own kernel broke the device"):
        bench_session(options, CPU, quiet=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BenchOptions(batches="1,x"), r"batch size 'x' \(allowed: whole numbers"),
        (BenchOptions(batches=","), "name at least one shape and one batch size"),
        (BenchOptions(dtypes="fp8"), "unknown dtype 'fp8'"),
        (BenchOptions(modes=""), "no mode is named"),
        (BenchOptions(peers="flute"), "unknown peer 'flute'"),
        (BenchOptions(shapes="8x64", group_size=48), "does not divide into groups of 48"),
    ],
)
def test_options_that_make_no_sense(options: BenchOptions, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        bench_session(BenchOptions(**{**options.__dict__, "out": tmp_path / "x.json"}), CPU)


def test_the_cpu_timer_counts_launches() -> None:
    calls: list[int] = []
    replays = CpuTimer().prepare([lambda: calls.append(1), lambda: calls.append(2)], "isolated")
    assert all(us > 0 for us in replays(3))
    assert calls == [1, *[1, 2] * 3]
