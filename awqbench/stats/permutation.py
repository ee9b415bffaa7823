"""Sign-flip permutation: a test of paired differences that assumes no distribution."""

from __future__ import annotations

import numpy as np

from awqbench.stats.bootstrap import DRAWS
from awqbench.stats.inputs import Clusters, Scores, as_scores, cluster_codes


def sign_flip(differences: Scores, clusters: Clusters = None, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p of 'the paired differences are symmetric around 0': clusters' signs are flipped at random.

    differences: float (n,), any unit; clusters: (n,) names. p = (1 + flips at least as extreme) / (1 + draws), where
    what is compared is the absolute sum; never 0. All-zero differences give 1. Exact for clusters that are independent
    and symmetric around 0, which identical models are, however few; k clusters that differ from 0 give no p below
    about 2 / 2^k, so that five hardly ever reach 5 %. It is no test of a mean: skewed differences whose mean is 0 raise
    more alarms than they should. Raises InvalidMeasurement as `paired_delta` does.
    Source: Fisher, The Design of Experiments (1935), section 21; Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9
    (2010).
    """
    array = as_scores(differences, "differences")
    codes = cluster_codes(clusters, array.size)
    sums = np.bincount(codes, weights=array)
    sums = sums[sums != 0]  # a cluster that sums to 0 says nothing whichever sign it has
    observed = abs(float(sums.sum()))
    rng = np.random.default_rng(seed)
    extreme, step = 0, max(1, 4_000_000 // max(sums.size, 1))
    for start in range(0, draws, step):
        signs = rng.integers(0, 2, (min(step, draws - start), sums.size), dtype=np.int8) * 2.0 - 1.0
        # The tolerance keeps sums that are equal but for rounding equal.
        extreme += int((np.abs(signs @ sums) >= observed * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + draws)
