"""Ours beside every peer: ratios, what may be claimed, and averages over layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from awqbench.kernelbench.floors import memory_share
from awqbench.kernelbench.problem import Shape
from awqbench.kernelbench.results import Measurement, Session, by_problem
from awqbench.kernelbench.series import bucket, claim, geometric_mean

OURS = "ours"
DENSE = "cublas"  # the one peer that does not read 4 bits
PREFIX, TAKEN_IN, APART = "layer/", "layer/taken-in", "layer/apart"  # of kernelbench.layers


@dataclass(frozen=True)
class Comparison:
    """One problem. `ratios`: a peer's typical time over ours, above 1 is in our favour; `claims`: what may be said
    (series.claim), or `throttled` where the device protected itself. `share` of the memory floor at the measured read
    bandwidth, `nominal_share` at the nominal one."""

    shape: Shape
    m: int
    dtype: str
    mode: str
    us: float
    spread: float
    share: float
    nominal_share: float | None
    ratios: dict[str, float]
    claims: dict[str, str]

    @property
    def best_peer(self) -> str | None:
        """The fastest 4-bit peer."""
        packed = {name: ratio for name, ratio in self.ratios.items() if name != DENSE}
        return min(packed, key=lambda name: packed[name]) if packed else None


@dataclass(frozen=True)
class Average:
    """Over the problems of one range of batch sizes that both were timed on."""

    peer: str
    bucket: str
    mean: float
    worst: float
    worst_at: str
    problems: int
    faster: int


def compare(session: Session, ours: str = OURS) -> list[Comparison]:
    """Every problem that `ours` was timed on."""
    found = []
    for (shape, m, dtype, mode), measured in by_problem(session.measurements).items():
        mine = measured.get(ours)
        if mine is None or mine.series is None:
            continue
        others = {name: each.series for name, each in measured.items() if is_peer(each) and each.series}
        read, nominal = session.ceilings.get("read"), session.ceilings.get("nominal")
        us, hot = mine.series.typical, any(each.throttled for each in measured.values())
        found.append(
            Comparison(
                shape, m, dtype, mode, us, mine.spread,
                memory_share(shape, m, us, read) if read else float("nan"),
                memory_share(shape, m, us, nominal) if nominal else None,
                {name: each.typical / us for name, each in others.items()},
                {name: "throttled" if hot else claim(mine.series, each) for name, each in others.items()},
            )
        )  # fmt: skip
    return found


def averages(comparisons: Sequence[Comparison]) -> list[Average]:
    """By range of batch sizes and peer, for comparisons of one dtype and mode."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for each in sorted(comparisons, key=lambda comparison: comparison.m):
        for peer in each.ratios:
            groups.setdefault((bucket(each.m), peer), []).append(each)
    found = []
    for (batch, peer), members in groups.items():
        worst = min(members, key=lambda member: member.ratios[peer])
        found.append(
            Average(
                peer, batch, geometric_mean(member.ratios[peer] for member in members), worst.ratios[peer],
                f"{worst.shape.n}x{worst.shape.k} M={worst.m}", len(members),
                sum(member.claims[peer] == "faster" for member in members),
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Best:
    """Our fastest variant on a problem and its typical time, beside that of the default."""

    variant: str
    us: float
    default_us: float | None


def best_variants(measurements: Iterable[Measurement]) -> dict[tuple[Shape, int, str, str], Best]:
    """For each problem that one of ours was timed on."""
    found: dict[tuple[Shape, int, str, str], Best] = {}
    for problem, measured in by_problem(measurements).items():
        times = {name: each.series.typical for name, each in measured.items() if is_ours(each) and each.series}
        if times:
            name = min(times, key=lambda each: times[each])
            found[problem] = Best(name, times[name], times.get(OURS))
    return found


def is_layer(measured: Measurement) -> bool:
    """Whether it is a product with what stands around it: kernelbench.layers."""
    return measured.contender.startswith(PREFIX)


def is_peer(measured: Measurement) -> bool:
    """Whether it is another's kernel for the plain product."""
    return not is_ours(measured) and not is_layer(measured)


def is_ours(measured: Measurement) -> bool:
    """Whether it is our kernel or a variant of it."""
    return measured.contender == OURS or measured.contender.startswith(f"{OURS}/")
