"""Planted losses: are they found as often as `mde`, `required_n` and `items_needed` promise?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from designs import Design, alone, equal, flips, scores
from rates import Rate

from awqbench.stats import mcnemar, mde, required_n
from awqbench.stats.bounds import Bounds, two_sided_p
from awqbench.stats.clustered import clustered_mean
from awqbench.stats.did import contrast_bounds
from awqbench.stats.discordant import DiscordantBounds, discordant_bounds
from awqbench.stats.verdict import decide, items_needed

_POWER, _SHARED = 0.8, 0.5


def study_power(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    """All promises of 80 %."""
    yield from _smallest_flips(rng, runs)
    yield from _smallest_means(rng, runs)
    yield from _planned(rng, runs)
    yield from _needed_flips(rng, runs)
    yield from _needed_clusters(rng, runs)


def _rate(scenario: str, measure: str, hits: int, runs: int) -> Rate:
    return Rate("power", scenario, measure, hits, runs, _POWER, "at least")


def _smallest_flips(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    for n, share in ((50, 0.05), (50, 0.15), (200, 0.05), (200, 0.15), (1000, 0.01), (1000, 0.05), (1000, 0.15)):
        effect = mde(n, flips=share)
        losses = flips(rng, alone(n), runs, (max(share, effect) + effect) / 2, (max(share, effect) - effect) / 2)
        found = sum(mcnemar(int((row > 0).sum()), int((row < 0).sum()), midp=True) < 0.05 for row in losses)
        scenario = f"a loss of {100 * effect:.1f} points, {n} items, {100 * share:g} % flips"
        yield _rate(scenario, "mde, mid-p McNemar", found, runs)
        found = sum(two_sided_p(discordant_bounds(row, alone(n).codes)) < 0.05 for row in losses)
        yield _rate(scenario, "mde, score bounds", found, runs)


def standard_error(design: Design) -> float:
    """The true standard error of the mean of `scores` of a design."""
    sizes = np.array(design.sizes)
    if len(sizes) == design.n:
        return 1 / math.sqrt(design.n)
    return math.sqrt(_SHARED * float((sizes**2).sum()) / design.n**2 + (1 - _SHARED) / design.n)


def _smallest_means(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    cases = [(alone(20), "normal"), (alone(200), "normal"), (alone(200), "exponential")]
    cases += [(equal(c, m), "normal") for c, m in ((40, 5), (10, 20), (5, 40))]
    for design, shape in cases:
        effect = mde(1, sd=standard_error(design), df=len(design.sizes) - 1)
        rows, codes = effect + scores(rng, design, runs, shape, _SHARED), design.codes
        found = sum(two_sided_p(clustered_mean(row, codes)) < 0.05 for row in rows)
        yield _rate(f"{shape} shift of {effect:.2f} standard deviations, {design.name}", "mde, means", found, runs)
        if len(design.sizes) < design.n:
            member = np.arange(design.n) % 5 == 0  # in each cluster: what is shared cancels
            spread = math.sqrt((1 - _SHARED) * (1 / member.sum() + 1 / (~member).sum()))
            harm = mde(1, sd=spread, df=len(design.sizes) - 1)
            rows = scores(rng, design, runs, shape, _SHARED) + harm * member
            found = sum(two_sided_p(contrast_bounds(row, member, codes, binary=False)) < 0.05 for row in rows)
            scenario = f"{shape} harm of {harm:.2f} to a fifth of every cluster, {design.name}"
            yield _rate(scenario, "mde, difference-in-differences", found, runs)


def _planned(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    for margin, share in ((0.02, 0.05), (0.05, 0.01), (0.05, 0.15)):
        n = required_n(margin, flips=share)
        rows = flips(rng, alone(n), runs, share / 2, share / 2)
        passed = sum(_verdict(discordant_bounds(row, alone(n).codes), margin) == "pass" for row in rows)
        scenario = f"no loss, margin {100 * margin:g} points, {100 * share:g} % flips: {n} items"
        yield _rate(scenario, "required_n", passed, runs)
    for margin in (0.2, 0.5):
        n = required_n(margin, sd=1)
        rows = scores(rng, alone(n), runs, "normal")
        passed = sum(_verdict(clustered_mean(row, alone(n).codes), margin) == "pass" for row in rows)
        yield _rate(f"no loss, normal, margin of {margin} standard deviations: {n} items", "required_n", passed, runs)


def _verdict(bounds: Bounds, margin: float) -> str:
    return decide(bounds, margin, 0.05).verdict


def _needed_flips(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    for lost, won, n, margin, aim in ((5, 5, 200, 0.02, "pass"), (4, 2, 100, 0.05, "pass"), (12, 3, 150, 0.03, "fail")):
        needed = items_needed(DiscordantBounds(lost, won, n), n, margin, 0.05)
        assert needed is not None
        rows = flips(rng, alone(needed), runs, lost / n, won / n)
        found = sum(_verdict(discordant_bounds(row, alone(needed).codes), margin) == aim for row in rows)
        scenario = f"{lost} of {n} lost, {won} won, margin {100 * margin:g} points: {needed} items to {aim}"
        yield _rate(scenario, "items_needed", found, runs)


def _needed_clusters(rng: np.random.Generator, runs: int) -> Iterator[Rate]:
    for pilot, loss, margin, aim in ((equal(20, 5), 0.0, 0.3, "pass"), (equal(8, 5), 0.6, 0.2, "fail")):
        seen = clustered_mean(scores(rng, pilot, 1, "normal", _SHARED)[0], pilot.codes)
        truth = replace(seen, estimate=loss, se=standard_error(pilot), skew=0.0)
        needed = items_needed(truth, pilot.n, margin, 0.05)
        assert needed is not None
        design = equal(math.ceil(needed / 5), 5)
        rows = loss + scores(rng, design, runs, "normal", _SHARED)
        found = sum(_verdict(clustered_mean(row, design.codes), margin) == aim for row in rows)
        scenario = f"normal, loss {loss}, margin {margin}, {pilot.name} seen: {design.name} to {aim}"
        yield _rate(scenario, "items_needed", found, runs)
