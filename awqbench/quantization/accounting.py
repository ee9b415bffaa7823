"""The rows of quantize.json: what rounding did to each linear, and what was decided for each group."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from awqbench.quantization.moments import Moments

SAMPLED_OUTPUTS = 128


def linear_row(
    name: str, original: Tensor, error: Tensor, nearest: Tensor, bits: int, tokens: int, moments: Moments | None
) -> dict[str, Any]:
    """What became of a linear.

    `original`, `error` and `nearest` [out, in] float32: the weight, and how far the stored one and the one rounded to
    nearest are off it, as functions of the unscaled input. `tokens` counts those that really reached the linear;
    `moments`, if any, are those its output errors are measured with: its own, or its whole group's if it saw none.
    Output errors are those of at most SAMPLED_OUTPUTS evenly spaced outputs: all would cost as much as a search.
    """
    row: dict[str, Any] = {
        "name": name,
        "shape": list(original.shape),
        "bits": bits,
        "tokens": tokens,
        "weight_error_rtn": ratio(nearest.norm(), original.norm()),
        "weight_error": ratio(error.norm(), original.norm()),
        "errors_on": None if moments is None else "its tokens" if tokens else "its group's tokens",
        "output_error_rtn": None,
        "output_error": None,
        "output_mse": None,
    }
    if moments is not None:
        step = -(-original.shape[0] // SAMPLED_OUTPUTS)
        signal, noise, control = (moments.energy(each[::step]) for each in (original, error, nearest))
        row["output_error_rtn"] = ratio(control, signal, root=True)
        row["output_error"] = ratio(noise, signal, root=True)
        row["output_mse"] = ratio(noise, moments.tokens * len(original[::step]))
    return row


def ratio(part: Tensor | float, whole: Tensor | float, root: bool = False) -> float | None:
    """part / whole, or its square root; None where that is no finite number, so that it can be written as JSON."""
    if not whole:
        return None
    value = max(float(part), 0.0) / float(whole) if root else float(part) / float(whole)
    value = value**0.5 if root else value
    return value if math.isfinite(value) else None
