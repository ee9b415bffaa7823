"""How wrong a result is, and how wrong it may be.

Bounds: relative error over the whole result, and per element u |ref| + 4 u sqrt(sum of (x w)^2), with u the unit
roundoff of the output type: the result's own rounding, and room for weights that were rounded to 16 bits, whose errors
are independent and so add up as their squares do. (A matmul on rounded weights reaches half of that bound. A first
version had |x||W| / sqrt(k) in the root's place; where a few inputs are large that is a quarter of it, and a right
matmul broke it in up to 6 elements of 1,000.) No layout or index error passes. Where enough elements are
compared, the error may also not exceed 1.1 times that of a plain matmul on the weights rounded to the same type.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from awqbench.kernelbench.reference import Reference

UNIT = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
RELATIVE = {torch.float16: 1e-3, torch.bfloat16: 6e-3}
HALF_SUBNORMAL = {torch.float16: 2.0**-25, torch.bfloat16: 2.0**-134}
ROOM = 4
AGAINST_MATMUL = 1.1
# Fewer elements than this are too few to compare two errors to within a tenth.
ENOUGH = 4096


@dataclass(frozen=True)
class Error:
    """`relative`: ||y - ref|| / ||ref||; `worst`: largest |y - ref| in units of its bound; `nonfinite`: their count."""

    relative: float
    worst: float
    nonfinite: int


def error(y: Tensor, reference: Reference) -> Error:
    """The error of y [m, n] (16 bits); elements that are not finite are counted and left out of the rest."""
    unit = UNIT[y.dtype]
    finite = torch.isfinite(y)
    difference = torch.where(finite, y.double() - reference.y, 0.0)
    bound = unit * reference.y.abs() + ROOM * unit * reference.spread + HALF_SUBNORMAL[y.dtype]
    size = float(reference.y.norm())
    relative = float(difference.norm()) / size if size else float(difference.norm())
    return Error(relative, float((difference.abs() / bound).max()), int((~finite).sum()))


def too_wrong(found: Error, dtype: torch.dtype, elements: int = 0, matmul: float | None = None) -> str | None:
    """Why an error is not acceptable, or None; `matmul` is the relative error of the plain matmul."""
    if found.nonfinite:
        return f"{found.nonfinite} elements are not finite"
    if found.relative >= RELATIVE[dtype]:
        return f"relative error {found.relative:.2e} (below {RELATIVE[dtype]:.0e} is allowed)"
    if found.worst > 1:
        return f"an element is {found.worst:.2g} times as far off as its bound allows"
    if matmul is not None and elements >= ENOUGH and found.relative > AGAINST_MATMUL * matmul:
        return f"relative error {found.relative:.2e} against {matmul:.2e} of a matmul on the dequantized weights"
    return None
