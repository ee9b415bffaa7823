"""Group-wise rounding to integers: the number grid every method shares."""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.quantization.tensor import QuantizedTensor

SCALE_FLOOR = 1e-5
_FLOAT16_MAX = 65504.0


def grid(groups: Tensor, bits: int, symmetric: bool = False) -> tuple[Tensor, Tensor]:
    """Step and integer zero point of each group, both float32 [..., 1], from float32 weights [..., group_size].

    Asymmetric: the range always includes 0, as a zero point clamped to 0 .. 2**bits - 1 would otherwise cut a one-sided
    group short. Symmetric: the zero point is 2**(bits - 1) and the largest magnitude lies half a step outside the codes
    on the positive side. The step is rounded to float16, the precision it is stored in, before any code is computed.
    """
    # Twice a reduction: aminmax along a short dimension is not vectorized, and 10 times slower.
    low, high = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    return grid_between(low, high, bits, symmetric)


def grid_between(low: Tensor, high: Tensor, bits: int, symmetric: bool = False) -> tuple[Tensor, Tensor]:
    """The same from the smallest and largest value of each group, float32 [..., 1]."""
    top = 2**bits - 1
    if symmetric:
        step = float16_step(torch.maximum(-low, high) * (2 / top))
        return step, torch.full_like(step, float(2 ** (bits - 1)))
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    step = float16_step((high - low) / top)
    return step, (-low / step).round_().clamp_(0, top)


def float16_step(step: Tensor) -> Tensor:
    """Steps as they are stored: positive float16 values, in float32."""
    return step.clamp(SCALE_FLOOR, _FLOAT16_MAX).half().float()


def quantize(weight: Tensor, bits: int, group_size: int, symmetric: bool = False) -> QuantizedTensor:
    """Round a weight [out, in] of any float dtype to the nearest codes of its groups along the input."""
    weight = weight.detach().float()
    step, zero = grid(weight.reshape(weight.shape[0], -1, group_size), bits, symmetric)
    return quantize_on(weight, step, zero, bits)


def quantize_on(weight: Tensor, step: Tensor, zero: Tensor, bits: int) -> QuantizedTensor:
    """The nearest codes of a float32 weight [out, in] on a given grid, `step` and `zero` float32 [out, groups, 1]."""
    out, inputs = weight.shape
    groups = weight.reshape(out, step.shape[1], -1)
    codes = ((groups / step).round_() + zero).clamp_(0, 2**bits - 1)
    return pack_codes(codes.view(out, inputs), step, zero, bits, groups.shape[-1])


def pack_codes(codes: Tensor, step: Tensor, zero: Tensor, bits: int, group_size: int) -> QuantizedTensor:
    """Float codes [out, in] with the steps and zero points [out, groups, 1] they were computed against."""
    return QuantizedTensor(
        codes=codes.to(torch.uint8).contiguous(),
        scales=step.squeeze(-1).half().contiguous(),
        zeros=zero.squeeze(-1).to(torch.uint8).contiguous(),
        bits=bits,
        group_size=group_size,
    )


def fake_quantize_groups_(groups: Tensor, bits: int, symmetric: bool = False) -> Tensor:
    """Replace float32 groups [..., group_size] by the values their codes stand for, in place.

    Equals `quantize(...).dequantize()` bit for bit without making the codes; the searches call it thousands of times.
    """
    step, zero = grid(groups, bits, symmetric)
    return round_groups_(groups, step, zero, bits)


def round_groups_(groups: Tensor, step: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The same on a given grid: `step` and `zero` float32 that broadcast against `groups`."""
    # To codes and back: clamping between tensors instead would save a pass, but is not vectorized.
    return groups.div_(step).round_().add_(zero).clamp_(0, 2**bits - 1).sub_(zero).mul_(step)


def fake_quantize(weight: Tensor, bits: int, group_size: int, symmetric: bool = False) -> Tensor:
    """A float32 copy of a weight [out, in] as it comes back from its codes."""
    groups = weight.detach().to(torch.float32, copy=True).view(weight.shape[0], -1, group_size)
    return fake_quantize_groups_(groups, bits, symmetric).view(weight.shape)
