"""How items hang together, and scores drawn for them: a row per simulated comparison, a column per item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Design:
    """Sizes of the clusters, in order of their items."""

    name: str
    sizes: tuple[int, ...]

    @property
    def n(self) -> int:
        """Items."""
        return sum(self.sizes)

    @property
    def codes(self) -> Codes:
        """Each item's cluster."""
        return np.repeat(np.arange(len(self.sizes), dtype=np.intp), self.sizes)


def alone(n: int) -> Design:
    """Items that are independent."""
    return Design(f"{n} items", (1,) * n)


def equal(clusters: int, size: int) -> Design:
    """Clusters of one size."""
    return Design(f"{clusters} clusters of {size}", (size,) * clusters)


def unequal(clusters: int, largest: int) -> Design:
    """Sizes 1, 2, ..., largest, 1, 2, ..."""
    sizes = tuple(1 + i % largest for i in range(clusters))
    return Design(f"{clusters} clusters of 1 to {largest}", sizes)


def giant(n: int, size: int) -> Design:
    """Half of all items in one cluster, the others in clusters of `size`."""
    small = n // 2 // size
    return Design(f"a cluster of {n // 2} and {small} of {size}", (n // 2, *(size,) * small))


CLUSTERED = (equal(40, 5), equal(10, 20), equal(5, 40), unequal(40, 9), giant(200, 5))
SHAPES = ("normal", "tied", "exponential", "log-normal")


def noise(rng: np.random.Generator, shape: str, size: tuple[int, int]) -> Floats:
    """Independent draws of mean 0 and variance 1 (`tied`: four steps per standard deviation's span, most of them 0)."""
    if shape == "normal":
        return rng.normal(size=size)
    if shape == "tied":  # -1, 0 and 1, where 0 is half of all
        return np.rint(rng.normal(size=size) / 1.4826) * 1.3
    if shape == "exponential":
        return rng.exponential(size=size) - 1
    assert shape == "log-normal", shape
    return (rng.lognormal(size=size) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def scores(rng: np.random.Generator, design: Design, runs: int, shape: str, shared: float = 0.5) -> Floats:
    """Per-item values of true mean 0; `shared` is the part of the variance that the items of a cluster have in common.

    Skewed shapes stay skewed: both parts have the shape.
    """
    own = noise(rng, shape, (runs, design.n))
    if len(design.sizes) == design.n:
        return own
    common = noise(rng, shape, (runs, len(design.sizes)))[:, design.codes]
    return np.sqrt(shared) * common + np.sqrt(1 - shared) * own


def autoregressive(rng: np.random.Generator, runs: int, n: int, rho: float) -> Floats:
    """Windows of one text: normal values of mean 0 and variance 1 whose neighbours correlate by `rho`, AR(1)."""
    values = rng.normal(size=(runs, n))
    values[:, 1:] *= np.sqrt(1 - rho**2)
    for at in range(1, n):
        values[:, at] += rho * values[:, at - 1]
    return values


def flips(
    rng: np.random.Generator, design: Design, runs: int, worse: float, better: float, shared: float = 0.0
) -> Floats:
    """Per-item losses: 1 with probability `worse`, -1 with probability `better`, else 0.

    A share `shared` of the items takes its cluster's draw instead of one of its own.
    """
    own = _signs(rng.random((runs, design.n)), worse, better)
    if shared == 0 or len(design.sizes) == design.n:
        return own
    common = _signs(rng.random((runs, len(design.sizes))), worse, better)[:, design.codes]
    return np.where(rng.random((runs, design.n)) < shared, common, own)


def _signs(uniform: Floats, worse: float, better: float) -> Floats:
    return (uniform < worse).astype(np.float64) - ((uniform >= worse) & (uniform < worse + better))
