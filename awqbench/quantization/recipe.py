"""What is asked of the quantizer: one value, recorded whole in quantize.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from awqbench.errors import UserError, unknown_choice

Method = Literal["rtn", "awq", "gptq", "awq+gptq"]
Search = Literal["gram", "module"]

BITS = (2, 3, 4, 8)
PER_CHANNEL = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How linears are quantized.

    `group_size` counts weights along the input that share a scale; `PER_CHANNEL` (-1) means one scale for each output
    channel. `clip` and `search` matter to the methods that scale, as `grouped_queries` does: whether a value that feeds
    several query heads may absorb a scale of the output projection. `damping` is for methods that compensate.
    """

    method: Method = "awq"
    bits: int = 4
    group_size: int = 64
    symmetric: bool = False
    clip: bool = True
    search: Search = "gram"
    damping: float = 0.03
    grouped_queries: bool = False
    seed: int = 0

    @property
    def scales(self) -> bool:
        """Whether input channels are scaled by their activations, and weights clipped (AWQ)."""
        return self.method.startswith("awq")

    @property
    def compensates(self) -> bool:
        """Whether the rounding error of a column is made up for by the columns after it (GPTQ)."""
        return self.method.endswith("gptq")

    def group(self, inputs: int) -> int:
        """The number of weights of a linear with `inputs` input channels that share a scale."""
        return inputs if self.group_size == PER_CHANNEL else self.group_size

    def check(self) -> None:
        """Raise UserError naming the first value that is not allowed."""
        choices = (
            ("method", self.method, get_args(Method)),
            ("search", self.search, get_args(Search)),
            ("bits", self.bits, BITS),
        )
        for what, value, allowed in choices:
            if value not in allowed:
                raise unknown_choice(what, value, allowed)
        if self.group_size < 1 and self.group_size != PER_CHANNEL:
            raise UserError(f"group size is {self.group_size} (allowed: 1 or more, or {PER_CHANNEL}: per channel)")
        if not 0 < self.damping < 1:
            raise UserError(f"damping is {self.damping} (allowed: above 0 and below 1)")
