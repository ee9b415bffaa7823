"""Groups, families and medians: difference-in-differences, the worst group, corrections, ratios of medians."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from designs import Codes, Design, Floats, alone, equal, flips, giant, scores, unequal
from rates import Rate, alarms, both_tails, tails
from scipy import stats

from awqbench.stats import benjamini_hochberg, holm, median_interval, simultaneous_differences, worst_group
from awqbench.stats.did import contrast_bounds
from awqbench.stats.medians import log_ratio_bounds

_DRAWS = 499


def study_did(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """A group that loses what the rest loses. crossed: every cluster holds items of all groups; nested: of one."""
    designs = [
        *(alone(n) for n in (50, 200, 1000)),
        *(equal(40, 5), equal(200, 5), equal(10, 20), equal(5, 40), unequal(40, 9), giant(200, 5)),
    ]
    for design in designs:
        kinds = ["alone"] if len(design.sizes) == design.n else ["crossed", "nested"]
        for kind, part in [(k, p) for k in kinds for p in (2, 5)]:
            member = (design.codes if kind == "nested" else np.arange(design.n)) % part == 0
            if len(set(design.codes[member])) < 2:
                continue  # refused: a group in one cluster
            where = f"{design.name}{'' if kind == 'alone' else ', ' + kind}, group of 1/{part}"
            values = {f"flips {100 * f:g} %": flips(rng, design, runs, f / 2, f / 2, 0.5) for f in (0.05, 0.15)}
            values |= {shape: scores(rng, design, runs, shape) for shape in ("normal", "exponential")[: 3 - part // 2]}
            for name, rows in values.items():
                binary = name.startswith("flips")
                bounds = [contrast_bounds(row, member, design.codes, binary=binary) for row in rows]
                yield from both_tails("difference-in-differences", f"{name}, {where}", *tails(bounds, 0))


def study_worst_group(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """The worst of equal groups: called harmed, or the largest true loss outside its bounds. Half as many runs."""
    runs //= 2
    for k, sizes in ((2, (10, 50)), (5, (10, 50)), (20, (10,))):
        for size in sizes:
            draws = {"normal": scores(rng, alone(k * size), runs, "normal")}
            draws["exponential"] = scores(rng, alone(k * size), runs, "exponential")
            draws["flips 5 %"] = flips(rng, alone(k * size), runs, 0.025, 0.025)
            for name, rows in draws.items():
                yield from _worst(f"{name}, {k} groups of {size}", rows, np.arange(k * size) % k, None)
        for clusters in (40, 10, 5) if k < 20 else (40,):
            design = equal(clusters, 2 * k)
            rows = scores(rng, design, runs, "normal")
            yield from _worst(f"normal, {k} groups crossed with {design.name}", rows, np.arange(design.n) % k, design)


def _worst(scenario: str, rows: Floats, groups: Codes, design: Design | None) -> Iterator[Rate]:
    codes = None if design is None else design.codes
    found = [worst_group(row, groups, codes, draws=_DRAWS, seed=i) for i, row in enumerate(rows)]
    yield alarms("worst group", scenario, "called harmed", np.array([w.p for w in found]))
    for measure, missed in (
        ("upper bound too low", [w.upper < 0 for w in found]),
        ("lower bound too high", [w.lower > 0 for w in found]),
    ):
        yield Rate("worst group", scenario, measure, sum(missed), len(rows), 0.05)


def study_simultaneous(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Intervals of all groups' differences at once: any of them beside the truth. Half as many runs."""
    runs //= 2
    cases = [("normal", alone(100), 2), ("normal", alone(100), 5), ("normal", alone(200), 20)]
    cases += [("normal", equal(40, 10), 5), ("normal", equal(10, 10), 5), ("flips 15 %", alone(400), 5)]
    for name, design, k in cases:
        drawn = flips(rng, design, runs, 0.075, 0.075) if name.startswith("flips") else scores(rng, design, runs, name)
        groups, codes = np.arange(design.n) % k, design.codes
        found = [simultaneous_differences(r, groups, codes, draws=_DRAWS, seed=i) for i, r in enumerate(drawn)]
        missed = sum(any(g.low > 0 or g.high < 0 for g in one.values()) for one in found)
        scenario = f"{name}, {k} groups of {design.name}"
        yield Rate("simultaneous intervals", scenario, "95 % intervals, any beside the truth", missed, runs, 0.05)
        smallest = np.array([min(g.p for g in one.values()) for one in found])
        yield alarms("simultaneous intervals", scenario, "any group called different", smallest)


def study_families(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Corrections over rules that share items: `dependence` is the correlation of any two rules' statistics."""
    for k, rho in [(k, r) for k in (1, 5, 20) for r in (0.0, 0.5, 0.9)]:
        common, own = rng.normal(size=(runs, 1)), rng.normal(size=(runs, k))
        p = stats.norm.sf(np.sqrt(rho) * common + np.sqrt(1 - rho) * own)
        smallest = np.array([holm(row).min() for row in p])
        yield alarms("families", f"{k} rules, dependence {rho:g}", "Holm, any false alarm", smallest)
    for rho in (0.0, 0.5):
        z = np.sqrt(rho) * rng.normal(size=(runs, 1)) + np.sqrt(1 - rho) * rng.normal(size=(runs, 20))
        z[:, 15:] += 3
        hits = [benjamini_hochberg(row) < 0.05 for row in stats.norm.sf(z)]
        share = sum(float(h[:15].sum()) / max(1, int(h.sum())) for h in hits)
        scenario = f"20 tests, 15 without effect, dependence {rho:g}"
        yield Rate("families", scenario, "Benjamini-Hochberg, share of false discoveries", share, runs, 0.05)


def study_median(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Times of one backend, log-normal; gaps of one request drift together. Half as many runs."""
    runs //= 2
    designs = [*(alone(n) for n in (2, 3, 5, 8, 20, 200)), equal(3, 24), equal(5, 24), equal(20, 24), unequal(12, 30)]
    for design in designs:
        times = np.exp(0.2 * scores(rng, design, runs, "normal"))
        found = np.array([median_interval(row, design.codes, seed=i, draws=_DRAWS) for i, row in enumerate(times)])
        for side, missed in (("below", found[:, 1] < 1), ("above", found[:, 0] > 1)):
            name = f"95 % interval {side} the truth"
            yield Rate("median", design.name, name, float(missed.sum()), runs, 0.025)


def study_medians(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Times of two backends of one speed, log-normal; gaps of one request drift together. Half as many runs."""
    runs //= 2
    cases = [(alone(n), alone(n)) for n in (2, 3, 5, 12, 40, 200)] + [(alone(8), alone(60))]
    cases += [(d, d) for d in (equal(5, 24), equal(10, 24), equal(40, 5), unequal(12, 30))]
    cases += [(equal(5, 24), equal(20, 24))]
    for first, second in cases:
        a, b = (np.exp(0.2 * scores(rng, d, runs, "normal")) for d in (first, second))
        bounds = partial(log_ratio_bounds, a_clusters=first.codes, b_clusters=second.codes, draws=_DRAWS)
        found = [bounds(x, y, i) for i, (x, y) in enumerate(zip(a, b, strict=True))]
        scenario = first.name if first == second else f"{first.name} against {second.name}"
        yield from both_tails("ratio of medians", scenario, *tails(found, 0))
