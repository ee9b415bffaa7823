"""Asymmetric group-wise rounding to integers: the number grid every method shares."""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.quantization.tensor import QuantizedTensor

SCALE_FLOOR = 1e-5
_FLOAT16_MAX = 65504.0


def grid(groups: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Step and integer zero point of each group, both float32 [..., 1], from float32 weights [..., group_size].

    The range always includes 0: a zero point clamped to 0 .. 2**bits - 1 would otherwise cut a one-sided group short.
    The step is rounded to float16, the precision it is stored in, before any code is computed from it.
    """
    top = 2**bits - 1
    low, high = groups.aminmax(dim=-1, keepdim=True)
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    step = ((high - low) / top).clamp(SCALE_FLOOR, _FLOAT16_MAX).half().float()
    return step, (-low / step).round_().clamp_(0, top)


def quantize(weight: Tensor, bits: int, group_size: int) -> QuantizedTensor:
    """Round a weight [out, in] of any float dtype to the nearest codes of its groups along the input."""
    out, inputs = weight.shape
    groups = weight.detach().float().reshape(out, inputs // group_size, group_size)
    step, zero = grid(groups, bits)
    codes = ((groups / step).round_() + zero).clamp_(0, 2**bits - 1)
    return QuantizedTensor(
        codes=codes.to(torch.uint8).view(out, inputs),
        scales=step.squeeze(-1).half(),
        zeros=zero.squeeze(-1).to(torch.uint8),
        bits=bits,
        group_size=group_size,
    )


def fake_quantize_groups_(groups: Tensor, bits: int) -> Tensor:
    """Replace float32 groups [..., group_size] by the values their codes stand for, in place.

    Equals `quantize(...).dequantize()` bit for bit without making the codes; the searches call it thousands of times.
    """
    step, zero = grid(groups, bits)
    return groups.div_(step).round_().clamp_(-zero, (2**bits - 1) - zero).mul_(step)


def fake_quantize(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """A float32 copy of a weight [out, in] as it comes back from its codes."""
    groups = weight.detach().to(torch.float32, copy=True).view(weight.shape[0], -1, group_size)
    return fake_quantize_groups_(groups, bits).view(weight.shape)
