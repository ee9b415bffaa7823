"""What every test accepts: finite scores, and names of items that are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from awqbench.errors import InvalidMeasurement, UserError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.intp]
Scores = npt.ArrayLike
Clusters = Sequence[object] | npt.NDArray[np.generic] | None


def as_scores(values: Scores, name: str, at_least: int = 2) -> Floats:
    """`values` as a one-dimensional float64 array.

    Raises InvalidMeasurement when a value is missing or not finite, or when there are fewer than `at_least`.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise UserError(f"{name} must be one-dimensional, not of shape {array.shape}")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise InvalidMeasurement(f"{name} has {bad} of {array.size} values that are not finite")
    if array.size < at_least:
        raise InvalidMeasurement(f"{name} has {array.size} items; at least {at_least} are needed")
    return array


def as_pair(reference: Scores, candidate: Scores) -> tuple[Floats, Floats]:
    """Two score arrays of the same items in the same order. Raises UserError when their lengths differ."""
    first, second = as_scores(reference, "reference"), as_scores(candidate, "candidate")
    if first.size != second.size:
        raise UserError(f"reference has {first.size} items and candidate {second.size}: they are not paired")
    return first, second


def cluster_codes(clusters: Clusters, n: int) -> Codes:
    """Cluster names as integers 0..C-1 in order of first appearance; None makes each item its own cluster.

    Raises UserError for another length than `n`, InvalidMeasurement for a missing name or fewer than two clusters.
    """
    if clusters is None:
        return np.arange(n, dtype=np.intp)
    names = list(clusters)
    if len(names) != n:
        raise UserError(f"clusters has {len(names)} entries for {n} items")
    if any(name is None or (not isinstance(name, str) and str(name) in {"nan", "NaT", "<NA>"}) for name in set(names)):
        raise InvalidMeasurement("clusters has a missing name: give items that are alone a name of their own")
    seen: dict[str, int] = {}
    codes = np.array([seen.setdefault(str(name), len(seen)) for name in names], dtype=np.intp)
    if len(seen) < 2:
        raise InvalidMeasurement(
            f"all {n} items are in one cluster: independent repetitions are needed for an interval"
        )
    return codes


def check_share(value: float, name: str) -> float:
    """A level, alpha or power strictly between 0 and 1. Raises UserError otherwise."""
    if not 0 < value < 1:
        raise UserError(f"{name} must be between 0 and 1, got {value!r}")
    return value
