"""How one linear is quantized, as far as a file's layout and its config.json care."""

from __future__ import annotations

from dataclasses import dataclass

PER_CHANNEL = -1


@dataclass(frozen=True, slots=True, order=True)
class Scheme:
    """`bits` of a code; `group_size` weights along the input share a scale (-1: all of an output channel's).

    `symmetric`: every zero point is 2**(bits - 1), the middle of the codes.
    """

    bits: int
    group_size: int
    symmetric: bool = False

    def __str__(self) -> str:
        groups = "per channel" if self.group_size == PER_CHANNEL else f"in groups of {self.group_size}"
        return f"{self.bits} bits {groups}, {'symmetric' if self.symmetric else 'asymmetric'}"

    def groups(self, inputs: int) -> int:
        """How many groups a row of `inputs` weights has; 0 when they do not divide it."""
        if self.group_size == PER_CHANNEL:
            return 1
        return 0 if inputs % self.group_size else inputs // self.group_size
