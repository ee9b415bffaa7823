"""Gram matrices cut short: the few directions that carry most, and a diagonal for the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sketch:
    """factor factor^T + diag(rest), for matrices [n, size, size]: `factor` [n, size, rank], `rest` [n, 1, size]."""

    factor: Tensor
    rest: Tensor

    def energy(self, rows: Tensor) -> Tensor:
        """d G d^T of each row d of `rows` [n, m, size]: [n, m, 1]. Overwrites `rows`."""
        along = torch.bmm(rows, self.factor).square_().sum(dim=-1, keepdim=True)
        return along.add_(rows.square_().mul_(self.rest).sum(dim=-1, keepdim=True))


def sketch(grams: Tensor, rank: int) -> Sketch:
    """The pivoted Cholesky factorization of `grams` [n, size, size], ended after `rank` columns.

    Exact for matrices of that rank; the diagonal always is (Harbrecht, Peters and Schneider, "On the low-rank
    approximation by the pivoted Cholesky decomposition", 2012). Matrices that are not finite give a sketch that is not.
    """
    count, size, _ = grams.shape
    each = torch.arange(count, device=grams.device)
    factor = grams.new_zeros(count, size, min(rank, size))
    rest = grams.diagonal(dim1=1, dim2=2).clone()
    # What is left of the diagonal below this is rounding: dividing by it would make it large.
    noise = rest.amax(dim=1) * size * torch.finfo(grams.dtype).eps
    for column in range(factor.shape[-1]):
        pivot = rest.argmax(dim=1)
        done = factor[:, :, :column]
        remainder = grams[each, pivot] - torch.bmm(done, done[each, pivot].unsqueeze(-1)).squeeze(-1)
        left = rest[each, pivot]
        factor[:, :, column] = torch.where(left <= noise, 0.0, left.rsqrt()).unsqueeze(-1) * remainder
        rest = (rest - factor[:, :, column].square()).clamp_(min=0)
    return Sketch(factor, rest.unsqueeze(1))
