"""Second moments of a linear's input: what every loss here needs to know of the calibration text."""

from __future__ import annotations

import torch
from torch import Tensor

_STRIPS = 4  # The Gram matrix is symmetric: in strips, only 10/16 of it is computed.


class Moments:
    """The Gram matrix [channels, channels] and the magnitudes of an input, summed over tokens in float32.

    Its size does not depend on the number of tokens.
    """

    def __init__(self, channels: int, device: torch.device | str = "cpu") -> None:
        self.tokens = 0
        self.sums = torch.zeros(channels, device=device)
        self._gram = torch.zeros(channels, channels, device=device)
        self._mirrored = True

    def add(self, inputs: Tensor) -> None:
        """Take in more tokens: [..., channels], any float dtype."""
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        self.tokens += rows.shape[0]
        self.sums += rows.abs().sum(dim=0)
        width = self._width
        for start in range(0, self.channels, width):
            self._gram[start : start + width, start:].addmm_(rows[:, start : start + width].T, rows[:, start:])
        self._mirrored = False

    @property
    def channels(self) -> int:
        """The input's width."""
        return self.sums.numel()

    @property
    def _width(self) -> int:
        return -(-self.channels // _STRIPS)

    @property
    def gram(self) -> Tensor:
        """Sum over tokens of x x^T."""
        if not self._mirrored:
            self._gram = self._gram.triu_().add_(self._gram.triu(1).T)
            self._mirrored = True
        return self._gram

    @property
    def magnitude(self) -> Tensor:
        """Mean absolute activation of each channel."""
        return self.sums / max(self.tokens, 1)

    @property
    def finite(self) -> bool:
        """Whether every input seen was finite, and its square."""
        return bool(self.gram.isfinite().all())

    def scaled(self, scale: Tensor) -> Moments:
        """The moments of the input divided by `scale` [channels]."""
        other = Moments.__new__(Moments)
        other.tokens, other.sums, other._mirrored = self.tokens, self.sums / scale, True
        other._gram = (self.gram / scale).div_(scale.unsqueeze(1))
        return other

    def blocks(self, group_size: int) -> Tensor:
        """The part inside each group of channels: [groups, group_size, group_size]."""
        groups = self.gram.view(-1, group_size, self.gram.shape[0] // group_size, group_size)
        return groups.diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()

    def row_energy(self, weight: Tensor) -> Tensor:
        """Squared norm, over all tokens, of each output that a weight [out, in] float32 gives: [out]."""
        gram, width = self.gram, self._width
        total = weight.new_zeros(weight.shape[0])
        for start in range(0, self.channels, width):
            product = weight[:, start : start + width] @ gram[start : start + width, start:]
            product[:, width:] *= 2
            total += product.mul_(weight[:, start:]).sum(dim=1)
        return total

    def energy(self, weight: Tensor) -> float:
        """The same summed over outputs."""
        return float(self.row_energy(weight).sum())


def pooled(parts: list[Moments]) -> Moments:
    """The moments of all tokens of several parts together; parts without tokens add nothing."""
    total = Moments(parts[0].channels, parts[0].sums.device)
    for part in parts:
        if part.tokens:
            total.tokens += part.tokens
            total.sums += part.sums
            total._gram += part.gram
    return total
