"""What an attribution costs, in tokens through a forward pass; a backward pass costs two more."""

from __future__ import annotations

from dataclasses import dataclass

from awqbench.errors import UserError

BACKWARD = 3  # a forward pass and the gradients of inputs and of weights


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens of one pass over each half, and how many passes there are."""

    estimating: int
    confirming: int
    points: int
    top: int

    @property
    def estimate(self) -> int:
        """Forward tokens of estimating: the gradients, and the damage itself."""
        return self.estimating * (1 + BACKWARD * self.points)

    @property
    def confirm(self) -> int:
        """Forward tokens of confirming: each set alone, then several, then all, beside the damage itself."""
        return self.confirming * (2 + self.top + len(step_counts(self.top)))

    @property
    def reference(self) -> int:
        """Forward tokens through the reference."""
        return self.estimating + self.confirming

    @property
    def total(self) -> int:
        """All of them."""
        return self.reference + self.estimate + self.confirm

    def within(self, seconds: float, per_token: float) -> int:
        """The largest `top` that keeps what is left, after the reference, within `seconds`.

        Raises UserError when not even the estimate and one set fit.
        """
        for top in range(self.top, 0, -1):
            cost = Cost(self.estimating, self.confirming, self.points, top)
            if (cost.estimate + cost.confirm) * per_token <= seconds:
                return top
        least = Cost(self.estimating, self.confirming, self.points, 1)
        needed = (least.estimate + least.confirm) * per_token / 60
        raise UserError(
            f"estimating and putting back one set takes about {needed:.1f} minutes here"
            " (allowed: a larger --max-minutes, or fewer or shorter --windows, fewer --items, fewer --points)"
        )


def step_counts(top: int) -> list[int]:
    """1, 2, 4, 8 ... up to `top`, and `top` itself."""
    counts = []
    count = 1
    while count < top:
        counts.append(count)
        count *= 2
    return [*counts, top] if top else []
