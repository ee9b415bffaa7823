"""False alarms and power of every test, each over 1,000 simulated comparisons and held against binomial limits.

docs/statistics.md has the whole study; what it names as limits is not asserted here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from awqbench.stats import (
    benjamini_hochberg,
    holm,
    mcnemar,
    mde,
    median_interval,
    required_n,
    sign_flip,
    simultaneous_differences,
    worst_group,
)
from awqbench.stats.bootstrap import bootstrap_mean
from awqbench.stats.bounds import Bounds, two_sided_p
from awqbench.stats.clustered import clustered_mean
from awqbench.stats.did import contrast_bounds
from awqbench.stats.discordant import DiscordantBounds, discordant_bounds
from awqbench.stats.medians import log_ratio_bounds
from awqbench.stats.verdict import decide, items_needed

RUNS = 1000
MOST = stats.binom.isf(1e-4, RUNS, 0.05)  # false alarms of a test whose level is 5 %: about 40 are counted here
FOUND = stats.binom.ppf(1e-4, RUNS, 0.8)  # of planted losses that 80 % should find

Make = Callable[[ModuleType], object]
DESIGNS: dict[str, Make] = {
    "20 items": lambda d: d.alone(20),
    "200 items": lambda d: d.alone(200),
    "40 clusters": lambda d: d.equal(40, 5),
    "5 clusters": lambda d: d.equal(5, 40),
    "unequal clusters": lambda d: d.unequal(40, 9),
    "a giant cluster": lambda d: d.giant(200, 5),
}
every_design = pytest.mark.parametrize("make", DESIGNS.values(), ids=DESIGNS)


def alarms(bounds: Sequence[Bounds], truth: float = 0.0) -> int:
    """The more frequent of passing and failing a margin that is the truth."""
    return max(sum(b.p_less(truth) < 0.05 for b in bounds), sum(b.p_greater(truth) < 0.05 for b in bounds))


@every_design
@pytest.mark.parametrize("shape", ["normal", "tied"])
def test_means(designs: ModuleType, make: Make, shape: str) -> None:
    design = make(designs)
    rows = designs.scores(np.random.default_rng(1), design, RUNS, shape)
    assert alarms([clustered_mean(row, design.codes) for row in rows]) <= MOST


def test_items_of_a_cluster_taken_as_independent_would_raise_far_too_many(designs: ModuleType) -> None:
    design = designs.equal(40, 5)
    rows = designs.scores(np.random.default_rng(1), design, RUNS, "normal")
    assert alarms([clustered_mean(row, np.arange(200)) for row in rows]) > 2 * MOST


def test_skewed_losses_of_enough_items(designs: ModuleType) -> None:
    rows = designs.scores(np.random.default_rng(1), designs.alone(50), RUNS, "exponential")
    assert alarms([clustered_mean(row, np.arange(50)) for row in rows]) <= MOST


@pytest.mark.parametrize("loss", [0.0, 0.05])
@pytest.mark.parametrize("shared", [0.0, 0.3])
@every_design
def test_flips(designs: ModuleType, make: Make, shared: float, loss: float) -> None:
    design = make(designs)
    if (shared == 0) != (len(design.sizes) == design.n):
        return
    rows = designs.flips(np.random.default_rng(2), design, RUNS, 0.05 + loss / 2, 0.05 - loss / 2, shared)
    assert alarms([discordant_bounds(row, design.codes) for row in rows], loss) <= MOST


@pytest.mark.parametrize("n", [20, 200, 1000])
def test_mcnemar(n: int) -> None:
    lost, won, _ = np.random.default_rng(3).multinomial(n, [0.05, 0.05, 0.9], RUNS).T
    for options in ({}, {"midp": True}, {"exact": False}):
        assert sum(mcnemar(int(b), int(c), **options) < 0.05 for b, c in zip(lost, won, strict=True)) <= MOST


@every_design
@pytest.mark.parametrize("nested", [False, True], ids=["crossed", "nested"])
@pytest.mark.parametrize("binary", [False, True], ids=["real", "flips"])
def test_difference_in_differences(designs: ModuleType, make: Make, nested: bool, binary: bool) -> None:
    design, rng = make(designs), np.random.default_rng(4)
    if nested and len(design.sizes) == design.n:
        return
    member = (design.codes if nested else np.arange(design.n)) % 2 == 0
    flips = designs.flips(rng, design, RUNS, 0.05, 0.05, 0.5)
    rows = flips if binary else designs.scores(rng, design, RUNS, "normal")
    assert alarms([contrast_bounds(row, member, design.codes, binary=binary) for row in rows]) <= MOST


@pytest.mark.parametrize("name", ["20 items", "5 clusters", "a giant cluster"])
def test_bootstrap(designs: ModuleType, name: str) -> None:
    """Plain BCa raises 6.5 % with 20 items and 11 % with 5 clusters."""
    design = DESIGNS[name](designs)
    rows = designs.scores(np.random.default_rng(5), design, RUNS, "normal")
    assert alarms([bootstrap_mean(row, design.codes, draws=399, seed=i) for i, row in enumerate(rows)]) <= MOST


@pytest.mark.parametrize(("name", "shape"), [("20 items", "tied"), ("40 clusters", "normal"), ("5 clusters", "normal")])
def test_sign_flips(designs: ModuleType, name: str, shape: str) -> None:
    design = DESIGNS[name](designs)
    rows = designs.scores(np.random.default_rng(6), design, RUNS, shape)
    assert sum(sign_flip(row, design.codes, draws=399, seed=i) < 0.05 for i, row in enumerate(rows)) <= MOST


@pytest.mark.parametrize("make", [*(lambda d, n=n: d.alone(n) for n in (2, 3, 5)), lambda d: d.equal(5, 24)])
def test_ratio_of_medians(designs: ModuleType, make: Make) -> None:
    design = make(designs)
    a, b = np.exp(0.2 * designs.scores(np.random.default_rng(7), design, 2 * RUNS, "normal")).reshape(2, RUNS, -1)
    codes = design.codes
    bounds = [
        log_ratio_bounds(x, y, i, a_clusters=codes, b_clusters=codes, draws=299)
        for i, (x, y) in enumerate(zip(a, b, strict=True))
    ]
    assert alarms(bounds) <= MOST
    assert sum(b.upper(0.05) < 0 for b in bounds) <= MOST


@pytest.mark.parametrize("make", [lambda d: d.alone(3), lambda d: d.alone(5), lambda d: d.equal(5, 24)])
def test_the_interval_of_one_median(designs: ModuleType, make: Make) -> None:
    design = make(designs)
    times = np.exp(0.2 * designs.scores(np.random.default_rng(7), design, RUNS, "normal"))
    found = [median_interval(row, design.codes, seed=i, draws=299) for i, row in enumerate(times)]
    assert sum(not low <= 1 <= high for low, high in found) <= MOST


@pytest.mark.parametrize("kind", ["normal", "flips"])
def test_the_worst_of_equal_groups_is_no_news(designs: ModuleType, kind: str) -> None:
    rng, groups = np.random.default_rng(8), np.arange(60) % 4
    rows = rng.normal(size=(RUNS, 60)) if kind == "normal" else designs.flips(rng, designs.alone(60), RUNS, 0.1, 0.1)
    found = [worst_group(row, groups, draws=299, seed=i) for i, row in enumerate(rows)]
    assert sum(w.p < 0.05 for w in found) <= MOST
    assert sum(w.upper < 0 for w in found) <= MOST
    assert sum(w.lower > 0 for w in found) <= MOST
    if kind == "normal":
        seen, expected = (np.mean([getattr(w, name) for w in found]) for name in ("excess", "excess_if_equal"))
        assert seen == pytest.approx(expected, abs=0.03)


def test_simultaneous_intervals_hold_together(designs: ModuleType) -> None:
    design = designs.equal(20, 5)
    rows = designs.scores(np.random.default_rng(9), design, RUNS, "normal")
    found = [
        simultaneous_differences(row, np.arange(100) % 5, design.codes, draws=299, seed=i) for i, row in enumerate(rows)
    ]
    assert sum(any(g.low > 0 or g.high < 0 for g in one.values()) for one in found) <= MOST
    assert sum(min(g.p for g in one.values()) < 0.05 for one in found) <= MOST


@pytest.mark.parametrize("dependence", [0.0, 0.9])
def test_families(dependence: float) -> None:
    rng = np.random.default_rng(10)
    z = np.sqrt(dependence) * rng.normal(size=(RUNS, 1)) + np.sqrt(1 - dependence) * rng.normal(size=(RUNS, 20))
    assert sum(holm(p).min() < 0.05 for p in stats.norm.sf(z)) <= MOST
    z[:, 15:] += 3  # the last five have an effect
    hits = [benjamini_hochberg(p) < 0.05 for p in stats.norm.sf(z)]
    assert sum(h[:15].sum() / max(1, h.sum()) for h in hits) <= MOST


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_equivalence_on_a_margin(designs: ModuleType, verdict: str) -> None:
    rows = 0.3 + designs.scores(np.random.default_rng(11), designs.alone(50), RUNS, "normal")
    found = [decide(clustered_mean(row, np.arange(50)), 0.3, 0.05, "two").verdict for row in rows]
    assert found.count(verdict) <= MOST


@pytest.mark.parametrize(("n", "share"), [(50, 0.05), (200, 0.05), (1000, 0.15)])
def test_planted_flips_are_found(designs: ModuleType, n: int, share: float) -> None:
    effect = mde(n, flips=share)
    most = max(share, effect)  # fifty items with 5 % flips show no loss that flips only 5 %
    lost, won, _ = (
        np.random.default_rng(12).multinomial(n, [(most + effect) / 2, (most - effect) / 2, 1 - most], RUNS).T
    )
    found = sum(mcnemar(int(b), int(c), midp=True) < 0.05 for b, c in zip(lost, won, strict=True))
    assert found >= FOUND


@pytest.mark.parametrize("harmed", [False, True], ids=["all", "a group of each cluster"])
def test_planted_shifts_in_clusters_are_found(designs: ModuleType, harmed: bool) -> None:
    design, rng = designs.equal(40, 5), np.random.default_rng(13)
    member = np.arange(200) % 5 == 0
    se = np.sqrt(0.5 * (1 / 40 + 1 / 160)) if harmed else np.sqrt(0.5 / 40 + 0.5 / 200)
    rows = designs.scores(rng, design, RUNS, "normal") + mde(1, sd=se, df=39) * (member if harmed else 1)
    if harmed:
        bounds = [contrast_bounds(row, member, design.codes, binary=False) for row in rows]
    else:
        bounds = [clustered_mean(row, design.codes) for row in rows]
    # The caution for skewness costs a little; 0.8 is Student's.
    assert sum(two_sided_p(b) < 0.05 for b in bounds) >= stats.binom.ppf(1e-4, RUNS, 0.78)


def test_planned_items_decide(designs: ModuleType) -> None:
    rng = np.random.default_rng(14)
    planned = required_n(0.05, flips=0.15)
    lost, won, n = 12, 3, 150  # 6 points lost, 3 allowed
    needed = items_needed(DiscordantBounds(lost, won, n), n, 0.03, 0.05)
    assert needed is not None
    for items, rates, margin, verdict in (
        (planned, (0.075, 0.075), 0.05, "pass"),
        (needed, (lost / n, won / n), 0.03, "fail"),
    ):
        counts = rng.multinomial(items, [*rates, 1 - sum(rates)], RUNS)
        found = sum(decide(DiscordantBounds(b, c, items), margin, 0.05).verdict == verdict for b, c, _ in counts)
        assert found >= stats.binom.ppf(1e-4, RUNS, 0.78)  # counts are whole: the corrected bound is a little cautious
