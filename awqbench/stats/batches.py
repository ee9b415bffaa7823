"""Consecutive pieces of one text, which are not independent: neighbours are one cluster (batch means)."""

from __future__ import annotations

import numpy as np

from awqbench.stats.inputs import Codes

FEWEST = 4  # three means hardly show their own skewness, and t with two degrees of freedom shows nothing else


def batches(n: int) -> Codes:
    """The batch that each of `n` consecutive items belongs to, intp (n,): 0, 0, ..., 1, 1, ... of about equal sizes.

    There are 1 + 0.4 n^(2/3) batches (rounded, at least 4 where n allows): 4 of 8 and of 16 items, 5 of 32, 7 of 64,
    11 of 128. Items correlate the less, the further they are apart, so the means of runs of neighbours are nearly
    independent where runs are long, and `clustered_mean` with batches as clusters is Student's t of these means. That
    many give t the degrees of freedom at which error and width were found in balance. Assumes one level and one spread
    along the text, and that correlations end within a few batches. With few items they do not: docs/statistics.md has
    error rates for 4 to 64 items with correlations of 0, 0.3 and 0.5.
    Source: Conway, Management Science 10 (1963), for batch means; Ibragimov & Mueller, J. Bus. Econ. Stat. 28 (2010),
    for t of few group means; Lazarus, Lewis, Stock & Watson, J. Bus. Econ. Stat. 36 (2018), for 0.4 n^(2/3).
    """
    count = min(n, max(FEWEST, round(1 + 0.4 * n ** (2 / 3))))
    return np.repeat(np.arange(count), [part.size for part in np.array_split(np.arange(n), count)])
