"""A kernel of others, timed beside ours."""

from __future__ import annotations

import torch

from awqbench.kernelbench.accuracy import RELATIVE
from awqbench.kernelbench.implementation import Implementation


class Peer(Implementation):
    """An Implementation that may be missing. `url` says where it comes from."""

    url: str = ""
    dtypes: tuple[torch.dtype, ...] = (torch.float16, torch.bfloat16)
    # A peer may round weights or zero points to 16 bits where we do not: correct by its own lights, and a wrong layout
    # is off by a hundred times more. The error itself stands in the results.
    tolerance = 8.0

    @classmethod
    def missing(cls, device: torch.device) -> str | None:
        """Why it can't run here, or None."""
        return None if device.type == "cuda" else "needs a GPU"

    def allowed_error(self, dtype: torch.dtype) -> float:
        """The relative error up to which its result counts as right."""
        return self.tolerance * RELATIVE[dtype]

    def wrong_dtype(self, dtype: torch.dtype) -> str | None:
        """A refusal where it has no such kernel."""
        return None if dtype in self.dtypes else f"no {str(dtype).removeprefix('torch.')} kernel"
