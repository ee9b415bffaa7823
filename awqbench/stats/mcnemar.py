"""Did more items turn wrong than turned right? McNemar's test on the items that changed."""

from __future__ import annotations

from scipy import stats

from awqbench.errors import UserError


def mcnemar(b: int, c: int, exact: bool = True, midp: bool = False) -> float:
    """Two-sided p of 'a changed item is as likely to turn wrong as to turn right'.

    b: items right in the reference and wrong in the candidate; c: the reverse. Exact is the binomial test of b among
    b + c at 1/2, twice the smaller tail; `midp` takes half the observed table's probability off each tail, which is
    less cautious; exact=False is the chi-square with Edwards' correction, (|b - c| - 1)^2 / (b + c). Without any change
    p is 1; fewer than six changed items give no exact p below 5 %. Assumes independent items: for clusters use
    `paired_delta`. Raises UserError for negative counts.
    Source: McNemar, Psychometrika 12 (1947); Fagerland, Lydersen & Laake, BMC Med. Res. Methodol. 13:91 (2013).
    """
    if b < 0 or c < 0:
        raise UserError(f"counts must not be negative, got b={b}, c={c}")
    changed = b + c
    if changed == 0:
        return 1.0
    if not exact:
        return float(stats.chi2.sf(max(abs(b - c) - 1, 0) ** 2 / changed, 1))
    smaller = min(b, c)
    p = min(1.0, 2 * float(stats.binom.cdf(smaller, changed, 0.5)))
    if not midp:
        return p
    return 1.0 if b == c else p - float(stats.binom.pmf(smaller, changed, 0.5))
