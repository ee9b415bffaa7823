"""False alarms and power of a limit on right/wrong answers: judged once, twice on new items, twice on half new ones.

python suites/calibration/confirm.py --runs 20000
"""

from __future__ import annotations

import argparse
from functools import cache

import numpy as np

from awqbench.stats.discordant import DiscordantBounds

ALPHA = 0.05
CASES = ((500, 0.05, 0.02), (1000, 0.05, 0.02), (1000, 0.10, 0.03))  # items, share of flips, margin
BEYOND = (0.0, 0.01, 0.02, 0.04)  # the true loss lies this far beyond the margin


@cache
def fails(plus: int, minus: int, n: int, margin: float) -> bool:
    """Whether `plus` lost and `minus` gained answers of n show a loss beyond the margin."""
    return DiscordantBounds(float(plus), float(minus), float(n)).p_greater(margin) < ALPHA


def main() -> None:
    """A line per case and true loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    for n, flips, margin in CASES:
        for beyond in BEYOND:
            loss = margin + beyond
            changed = max(flips, loss)
            shares = [(changed + loss) / 2, (changed - loss) / 2, 1 - changed]

            def drawn(items: int, shares: list[float] = shares) -> np.ndarray:
                return rng.multinomial(items, shares, asked.runs)

            first, second = drawn(n), drawn(n)
            kept = drawn(n // 2)
            halves = [kept + drawn(n - n // 2) for _ in range(2)]
            found = [
                np.array([fails(int(plus), int(minus), n, margin) for plus, minus, _ in counts])
                for counts in (first, second, *halves)
            ]
            print(
                f"n={n} flips={changed:.2f} margin={margin:.2f} loss={loss:.2f}: once {found[0].mean():.4f}, "
                f"twice {(found[0] & found[1]).mean():.4f}, twice with half of the items new "
                f"{(found[2] & found[3]).mean():.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
