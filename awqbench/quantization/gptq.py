"""Error-compensated rounding: each column's error is made up for by the columns that are rounded after it.

Frantar et al., "GPTQ" (arXiv 2210.17323). Written as successive cancellation (Chee et al., "QuIP", arXiv 2307.13304,
section 3): with the damped Gram matrix H = R R^T, R upper triangular, the loss is |(W - Q) R|^2, and column j's part of
it depends on no column after j. So no matrix is inverted.

Weights, codes and errors are transposed here, [in, out]: a column of the weight is then contiguous.
"""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.errors import InvalidMeasurement

_BLOCK = 64  # columns whose mutual feedback is applied one by one; that of all earlier ones is one matrix product
_MOST_DAMPING = 100.0


def damped(gram: Tensor, damping: float) -> Tensor:
    """The Gram matrix [in, in] over its mean diagonal, with `damping` added to the diagonal so that it can be factored.

    Dividing changes no code; it keeps tiny and huge activations within float32. No activation at all gives damping * I.
    """
    mean = gram.diagonal().mean()
    result = gram / torch.where(mean > 0, mean, 1.0)
    result.diagonal().add_(damping)
    return result


def feedback(gram: Tensor, damping: float) -> tuple[Tensor, float]:
    """What each earlier column's error adds to a later column's target: unit upper triangular [in, in], float32.

    Where the damped matrix is not positive definite, in float64 neither, the damping is raised tenfold until it is;
    returns the damping that was used. Raises InvalidMeasurement for a matrix that is not finite.
    """
    used = damping
    while used <= _MOST_DAMPING:
        for dtype in (torch.float32, torch.float64):
            factor, failed = torch.linalg.cholesky_ex(damped(gram.to(dtype), used).flip(0, 1))
            if not failed and bool(factor.isfinite().all()):
                upper = factor.flip(0, 1)
                return (upper / upper.diagonal()).float(), used
        used *= 10
    raise InvalidMeasurement("a Gram matrix of the calibration inputs is not finite")


def compensated_codes(weight: Tensor, upper: Tensor, order: Tensor, step: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Codes, as floats, of a transposed `weight` [in, out] float32 on the grid `step` and `zero` [groups, out].

    Columns are rounded in the order given [in], int64, which `upper`, the feedback matrix, is in as well. A group's
    grid is fixed, so any order gives codes of the same format.
    """
    inputs = weight.shape[0]
    groups = (order // (inputs // step.shape[0])).tolist()
    target = weight[order]
    error = torch.empty_like(target)
    codes = torch.empty_like(target)
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        wanted = target[start:stop].addmm(upper[:start, start:stop].T, error[:start])
        for column in range(start, stop):
            scale, offset = step[groups[column]], zero[groups[column]]
            code = torch.div(wanted[column - start], scale, out=codes[column])
            code.round_().add_(offset).clamp_(0, 2**bits - 1)
            torch.sub(target[column], (code - offset).mul_(scale), out=error[column])
            wanted[column + 1 - start :].addr_(upper[column, column + 1 : stop], error[column])
    result = torch.empty_like(codes)
    result[order] = codes
    return result
