"""Better codes for the linears that read one input, from what the calibration text says of that input."""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.quantization.descent import descend
from awqbench.quantization.gptq import compensated_codes, damped, feedback
from awqbench.quantization.moments import Moments
from awqbench.quantization.rounding import pack_codes
from awqbench.quantization.tensor import QuantizedTensor

SWEEPS = 2
_SHRINK_FEW_TOKENS = 8.0
_MOST_SHRINKAGE = 10.0
_CHUNK_WEIGHTS = 1 << 24  # 64 MiB of float32 for each temporary


def shrinkage(moments: Moments, damping: float) -> float:
    """The damping for a Gram matrix of so many tokens: `damping` for a long text, more the fewer tokens per channel.

    A matrix of few tokens knows correlations that other text does not have; damping shrinks them. (Measured: see
    docs/quantization.md.)
    """
    return min(damping * (1 + _SHRINK_FEW_TOKENS * moments.channels / moments.tokens), _MOST_SHRINKAGE)


def compensate(
    weight: Tensor, nearest: QuantizedTensor, moments: Moments, damping: float
) -> tuple[QuantizedTensor, float]:
    """Better codes and steps than the `nearest` ones for a `weight` [out, in] float32 whose input has these moments.

    Successive cancellation, the channels of greatest energy first, then coordinate descent. The zero points stay as
    they are. A row that comes out no better on the calibration text keeps what it had. Returns the damping too, which
    is raised where the Gram matrix is near singular.
    """
    order = moments.gram.diagonal().argsort(descending=True, stable=True)
    upper, used = feedback(moments.gram[order][:, order], damping)
    gram = damped(moments.gram, used)
    parts = []
    # Rows are independent of each other.
    rows = max(1, _CHUNK_WEIGHTS // weight.shape[1])
    for start in range(0, len(weight), rows):
        chunk = slice(start, start + rows)
        before = QuantizedTensor(
            nearest.codes[chunk], nearest.scales[chunk], nearest.zeros[chunk], nearest.bits, nearest.group_size
        )
        transposed = weight[chunk].T.contiguous()
        step, zero = (part.T.float().contiguous() for part in (before.scales, before.zeros))
        codes = compensated_codes(transposed, upper, order, step, zero, before.bits)
        codes, step = descend(transposed, gram, codes, step, zero, before.bits, SWEEPS)
        after = pack_codes(codes.T, step.T.unsqueeze(-1), zero.T.unsqueeze(-1), before.bits, before.group_size)
        parts.append(better_rows(weight[chunk], after, before, moments))
    codes, scales, zeros = (torch.cat([getattr(part, name) for part in parts]) for name in ("codes", "scales", "zeros"))
    return QuantizedTensor(codes, scales, zeros, nearest.bits, nearest.group_size), used


def better_rows(weight: Tensor, one: QuantizedTensor, other: QuantizedTensor, moments: Moments) -> QuantizedTensor:
    """Each row from whichever of two roundings has the smaller output error."""
    better = moments.row_energy(one.dequantize() - weight) <= moments.row_energy(other.dequantize() - weight)
    better = better.unsqueeze(1)
    pairs = ((one.codes, other.codes), (one.scales, other.scales), (one.zeros, other.zeros))
    codes, scales, zeros = (torch.where(better, *pair).contiguous() for pair in pairs)
    return QuantizedTensor(codes, scales, zeros, one.bits, one.group_size)
