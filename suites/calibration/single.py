"""One paired comparison: McNemar, score bounds, cluster-robust t, bootstrap and sign flips at the truth."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from designs import CLUSTERED, SHAPES, Design, alone, autoregressive, equal, flips, giant, scores
from rates import Rate, alarms, both_tails, tails

from awqbench.stats import mcnemar, sign_flip
from awqbench.stats.batches import batches
from awqbench.stats.bootstrap import bootstrap_mean
from awqbench.stats.clustered import clustered_mean
from awqbench.stats.discordant import discordant_bounds
from awqbench.stats.ratio import linearized
from awqbench.stats.verdict import decide

ITEMS = (20, 50, 200, 1000)
_DRAWS = 499
_fast_mcnemar = lru_cache(maxsize=None)(mcnemar)


def study_mcnemar(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Identical models whose answers flip at random: right or wrong before, by the accuracy."""
    for accuracy, share, n in [(a, f, n) for a in (0.3, 0.7, 0.95) for f in (0.01, 0.05, 0.15) for n in ITEMS]:
        if share / 2 > min(accuracy, 1 - accuracy) or (accuracy != 0.7 and n != 200):
            continue  # that many cannot turn either way; the accuracy alone changes nothing
        right = rng.random((runs, n)) < accuracy
        flipped = rng.random((runs, n)) < np.where(right, share / 2 / accuracy, share / 2 / (1 - accuracy))
        lost, won = (flipped & right).sum(1), (flipped & ~right).sum(1)
        scenario = f"accuracy {accuracy}, {100 * share:g} % flips, {n} items"
        for measure, options in (("exact", {}), ("mid-p", {"midp": True}), ("chi-square", {"exact": False})):
            p = np.array([_fast_mcnemar(int(b), int(c), **options) for b, c in zip(lost, won, strict=True)])
            yield alarms("mcnemar", scenario, measure, p)


def study_flips(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Score bounds of right/wrong losses, at a margin that is the true loss (0: identical models)."""
    plain = [(alone(n), loss, f, 0.0) for n in ITEMS for loss, f in ((0, 0.01), (0, 0.05), (0, 0.15), (0.01, 0.01))]
    plain += [(alone(n), 0.05, 0.1, 0.0) for n in ITEMS] + [(alone(40), 0.01, 0.01, 0.0)]
    clustered = [(d, loss, f, s) for d in CLUSTERED for loss, f in ((0, 0.15), (0.05, 0.1)) for s in (0.3, 0.7)]
    clustered += [(equal(200, 5), 0.02, 0.05, 0.3), (equal(40, 5), 0.02, 0.02, 1.0), (equal(10, 20), 0.02, 0.02, 1.0)]
    for design, loss, share, shared in plain + clustered:
        worse, better = (share + loss) / 2, (share - loss) / 2
        losses, codes = flips(rng, design, runs, worse, better, shared), design.codes
        hang = f", {100 * shared:g} % of flips shared" if shared else ""
        scenario = f"{design.name}{hang}, {100 * share:g} % flips, loss {100 * loss:g} points"
        yield from both_tails("flips", scenario, *tails([discordant_bounds(row, codes) for row in losses], loss))


def study_means(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Cluster-robust t of real values, at a margin that is the true mean."""
    for design, shape in [(d, s) for d in (*map(alone, ITEMS), *CLUSTERED) for s in SHAPES]:
        values, codes = scores(rng, design, runs, shape), design.codes
        scenario = f"{shape}, {design.name}"
        yield from both_tails("means", scenario, *tails([clustered_mean(row, codes) for row in values], 0))
    same = clustered_mean(np.zeros(50), alone(50).codes)
    yield from both_tails("means", "all differences zero, 50 items", *tails([same] * runs, 0))


def study_batches(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Cluster-robust t over batches of neighbouring windows of one text, and what windows as clusters would give."""
    for n, rho in [(n, rho) for n in (8, 16, 32, 64, 4) for rho in (0.0, 0.3, 0.5)]:
        values, scenario = autoregressive(rng, runs, n, rho), f"{n} windows, neighbours correlate by {rho:g}"
        found = [clustered_mean(row, batches(n)) for row in values]
        yield from both_tails("batches", scenario, *tails(found, 0))
        plain = tails([clustered_mean(row, np.arange(n)) for row in values], 0)[0]
        hits = float((plain < 0.05).sum())
        yield Rate("batches", scenario, "passed, were windows independent", hits, runs, 0.05, "about")


def study_documents(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Loss per word of documents of unequal lengths: one model's figure, and the ratio of two models' figures.

    Lengths are log-normal; a document's loss per word and its change are normal. Figures are compared as logarithms.
    """
    for n, spread in ((20, 0.8), (62, 0.8), (62, 0.3)):
        words, codes = rng.lognormal(6, spread, (runs, n)), np.arange(n)
        losses, changes = rng.normal(3, 0.4, (runs, n)), rng.normal(0.05, 0.02, (runs, n))
        for name, values, truth in (("one figure", losses, 3.0), ("the ratio of two", changes, 0.05)):
            found = [clustered_mean(linearized(row, own), codes) for row, own in zip(values, words, strict=True)]
            scenario = f"{name}, {n} documents, spread of lengths {spread:g}"
            yield from both_tails("documents", scenario, *tails(found, truth))


def study_equivalence(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Two one-sided tests with the true change on either margin, and power at no change."""
    for design in (alone(50), alone(1000), equal(40, 5)):
        for sign in (1, -1):
            values, codes = 0.3 * sign + scores(rng, design, runs, "normal"), design.codes
            found = [decide(clustered_mean(row, codes), 0.3, 0.05, "two").verdict for row in values]
            scenario = f"normal, {design.name}, true change {0.3 * sign:+}"
            for verdict in ("pass", "fail"):
                yield Rate("equivalence", scenario, f"{verdict} at the margin", found.count(verdict), runs, 0.05)


def study_bootstrap(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """BCa bootstrap of the mean with 499 draws. Half as many runs."""
    runs //= 2
    cases = [(alone(n), s) for n in (20, 50, 200) for s in ("normal", "exponential", "log-normal")]
    cases += [(d, s) for d in (equal(40, 5), equal(10, 20), equal(5, 40), giant(200, 5)) for s in ("normal", "tied")]
    for design, shape in cases:
        values, codes = scores(rng, design, runs, shape), design.codes
        bounds = [bootstrap_mean(row, codes, draws=_DRAWS, seed=i) for i, row in enumerate(values)]
        yield from both_tails("bootstrap", f"{shape}, {design.name}", *tails(bounds, 0))


def study_sign_flip(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """Sign flips of symmetric differences, which identical models give, and of skewed ones. Half as many runs."""
    runs //= 2
    cases: list[tuple[Design, str]] = [(alone(n), s) for n in (20, 200) for s in ("normal", "tied", "exponential")]
    cases += [(d, "normal") for d in (equal(40, 5), equal(10, 20), equal(5, 40), giant(200, 5))]
    for design, shape in cases:
        values = scores(rng, design, runs, shape)
        p = np.array([sign_flip(row, design.codes, draws=_DRAWS, seed=i) for i, row in enumerate(values)])
        yield alarms("sign flip", f"{shape}, {design.name}", "two-sided", p)
