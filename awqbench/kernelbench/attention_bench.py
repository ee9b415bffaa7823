"""The attention kernel beside what it replaces: in turns, checked before it is timed, saved as it goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from awqbench.kernelbench import accuracy
from awqbench.kernelbench.attention import MODELS, Contender, Heads, Step, contenders, expected, random_step
from awqbench.kernelbench.bench import ENOUGH_SECONDS, FEWEST_REPLAYS, DeviceLost, Settings
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.floors import microseconds
from awqbench.kernelbench.problem import DTYPES
from awqbench.kernelbench.results import AttentionTime, Session
from awqbench.kernelbench.runner import device_lost
from awqbench.kernelbench.schedule import copies, launches, turns
from awqbench.kernelbench.series import claim, series
from awqbench.kernelbench.timers import Timer

log = logging.getLogger(__name__)

CONTEXTS, BATCHES, ROOM = (128, 1024, 8192), (1, 8), 128
ALLOWED = {torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of what rounds tables, products and weights to 16 bits
OURS, WHOLE = "attend", "torch"


def problems(tiny: bool = False) -> list[tuple[str, Heads]]:
    """Models by name with their sizes; `tiny`: one that a CPU does in milliseconds."""
    if tiny:
        return [("tiny", Heads(8, 2, 64, 1, 30, 64))]
    return [
        (model, Heads(heads, key_heads, size, batch, context, context + ROOM))
        for batch in BATCHES
        for context in CONTEXTS
        for model, (heads, key_heads, size) in MODELS.items()
    ]


def benchmark_attention(
    session: Session, device: torch.device, timer: Timer, budget: Budget, settings: Settings, mode: str, dtype: str,
    without: set[str], keep: Callable[[Sequence[AttentionTime]], None],
) -> None:  # fmt: skip
    """Measure what the session lacks and append it; `keep` is called after each problem. Raises DeviceLost."""
    wanted = [each for each in contenders() if each.name not in without]
    names = {contender.name for contender in wanted}
    done = {
        (each.model, each.batch, each.context, each.dtype, each.mode)
        for each in session.attention
        if each.contender in names
    }
    for model, sizes in problems(tiny=device.type != "cuda"):
        if budget.spent():
            return
        if (model, sizes.batch, sizes.context, dtype, mode) in done:
            continue
        found, lost = _measure(model, sizes, dtype, mode, wanted, device, timer, settings)
        session.attention.extend(found)
        keep(found)
        if lost is not None:
            raise DeviceLost(lost)


def _measure(
    model: str, sizes: Heads, dtype: str, mode: str, wanted: Sequence[Contender], device: torch.device, timer: Timer,
    settings: Settings,
) -> tuple[list[AttentionTime], str | None]:  # fmt: skip
    step = random_step(sizes, DTYPES[dtype], device, unseen=0.0)
    steps = [step]
    count = copies(sizes.bytes, settings.cache)
    steps += [step.copy() for _ in range(count - 1)]
    number = launches(count, settings.least_launches)
    right = expected(step).y
    found: dict[str, AttentionTime] = {}
    replays: dict[str, Callable[[int], list[float]]] = {}

    def told(name: str, status: str, detail: str = "", **more: object) -> AttentionTime:
        return AttentionTime(
            name, model, sizes.heads, sizes.key_heads, sizes.size, sizes.batch, sizes.context, dtype, mode,
            sizes.bytes, status, detail, **more,  # type: ignore[arg-type]
        )  # fmt: skip

    for contender in wanted:
        name = contender.name
        try:
            if reason := _wrong(contender, step, right):
                found[name] = told(name, "wrong", reason)
                continue
            replays[name] = timer.prepare(
                [lambda each=steps[i % count], by=contender: by.run(each) for i in range(number)],  # type: ignore[misc]
                mode,
            )
        except Exception as failure:
            log.warning("%s on %s", name, sizes, exc_info=True)
            found[name] = told(name, "failed", f"{type(failure).__name__}: {str(failure).splitlines()[:1]}")
            if device_lost(device):
                return [found[name]], name  # the others' turn comes without it
    runs: dict[str, list[list[float]]] = {name: [] for name in replays}
    enough = {
        name: int(
            min(settings.replays, max(FEWEST_REPLAYS, ENOUGH_SECONDS * 1e6 / (max(min(replay(2)), 1e-3) * number)))
        )
        for name, replay in replays.items()
    }
    for name in turns(list(replays), settings.runs):
        runs[name].append(replays[name](enough[name]))
    for name, times in runs.items():
        result = series(times)
        found[name] = told(
            name, "timed", runs=tuple(round(us, 3) for us in result.runs), spread=round(result.spread, 3)
        )
    return [found[each.name] for each in wanted], None


def _wrong(contender: Contender, step: Step, right: torch.Tensor) -> str | None:
    y = contender.run(step)
    if not contender.whole:
        return None
    off = float((y.double() - right).norm() / right.norm())
    limit = accuracy.RELATIVE[y.dtype] if contender.name.startswith(OURS) else ALLOWED[y.dtype]
    return None if off < limit else f"relative error {off:.2e}"


def attention_lines(session: Session, measured: Iterable[AttentionTime]) -> Iterator[str]:
    """One problem: a headline with the memory floor, then a line per contender."""
    measured = list(measured)
    if not measured:
        return
    one, read = measured[0], session.ceilings.get("read")
    floor = microseconds(one.bytes, read) if read else None
    ending = f", floor {floor:.2f} us" if floor else ""
    yield (
        f"attention of {one.model} ({one.heads}/{one.key_heads} heads of {one.size}), context {one.context},"
        f" batch {one.batch} {one.dtype} {one.mode}{ending}"
    )
    ours = next((each.series for each in measured if each.contender == OURS), None)
    for each in measured:
        if (times := each.series) is None:
            yield f"  {each.contender:12} {each.status}: {each.detail}"
            continue
        share = f" {floor / times.typical:5.0%} of floor" if floor else ""
        beside = ""
        if ours is not None and each.contender != OURS:
            beside = f"  attend is {times.typical / ours.typical:.2f}x: {claim(ours, times)}"
        yield f"  {each.contender:12} {times.typical:9.2f} us +-{times.spread:.2f}{share}{beside}"
