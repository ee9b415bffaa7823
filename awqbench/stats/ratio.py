"""A ratio of sums, such as the loss per word of documents of unequal length, as a mean that other tests can take."""

from __future__ import annotations

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.stats.inputs import Floats


def linearized(values: Floats, weights: Floats) -> Floats:
    """R + w (v - R) / mean(w), with R = sum w v / sum w; float64 (n,).

    Its mean is R, and its spread is what R would have over other items (Cochran, Sampling Techniques, 1977, chapter 6):
    an item's share of the weight adds none by itself. Of two models' values with the same weights the difference is the
    linearized difference. Raises InvalidMeasurement for weights that are not positive.
    """
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise InvalidMeasurement("weights must be positive: an item weighs nothing, or is not a number")
    ratio = float((weights * values).sum() / weights.sum())
    return ratio + weights * (values - ratio) / float(weights.mean())
