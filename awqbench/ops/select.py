"""Which implementation of the W4A16 linear runs: one decision, made once per layer and recorded with the results."""

from __future__ import annotations

import torch

from awqbench.errors import BackendUnavailable, UserError, unknown_choice
from awqbench.ops import cpu, cuda, cuda_layout, torch_int4
from awqbench.ops.layout import NIBBLE

KERNELS = ("auto", "cpu", "cuda", "torch-int4", "dequantize")
HALVES = (torch.float16, torch.bfloat16)


def select_kernel(
    kernel: str,
    *,
    dtype: torch.dtype,
    device: str | torch.device,
    out_features: int,
    group_size: int,
    bits: int = NIBBLE,
    half_scales: bool = True,
    nibble_zeros: bool = True,
    in_features: int | None = None,
) -> str:
    """The kernel to use for one linear: `kernel` itself, or for `auto` the fastest that is right.

    `cpu` is the C++ kernel, `cuda` those for NVIDIA devices, `torch-int4` torch's bfloat16 op, `dequantize` the
    reference. `bits` are a code's; `half_scales` says whether float16 holds the scales exactly, which `cpu` and `cuda`
    need, `nibble_zeros` whether 4 bits hold the zero points, for `cuda`. `in_features` only matters where one group
    spans a row, and for groups of 16. By name, `cuda` may be had on a CPU, to pack a layer before it moves to its
    device: it runs there, but slowly. Raises UserError when a kernel asked for by name is unknown or does not fit,
    BackendUnavailable when it cannot be built here.
    """
    if kernel not in KERNELS:
        raise unknown_choice("kernel", kernel, KERNELS)
    place = torch.device(device).type
    on_cpu = place == "cpu"
    packable = bits <= NIBBLE and half_scales and nibble_zeros
    fitting = {
        "cuda": packable
        and cuda_layout.fits(in_features or 2 * group_size, group_size)
        and (on_cpu or (place == "cuda" and dtype in HALVES)),
        "cpu": on_cpu and half_scales and cpu.fits(out_features, group_size, in_features),
        "torch-int4": on_cpu
        and dtype == torch.bfloat16
        and bits <= NIBBLE
        and torch_int4.fits(out_features, group_size),
        "dequantize": True,
    }
    if kernel == "auto":
        if place == "cuda":
            return "cuda" if fitting["cuda"] and cuda.unavailable(device) is None else "dequantize"
        if fitting["cpu"] and cpu.unavailable() is None:
            return "cpu"
        return "torch-int4" if fitting["torch-int4"] else "dequantize"
    if not fitting[kernel]:
        raise UserError(
            f"kernel {kernel!r} does not take {out_features} outputs of {bits} bits in groups of {group_size}"
            f"{'' if half_scales else ' with scales that are no float16 numbers'}"
            f"{'' if nibble_zeros else ' with zero points above 15'}, "
            f"{str(dtype).removeprefix('torch.')} on {device}"
        )
    if kernel == "cpu" and (reason := cpu.unavailable()):
        raise BackendUnavailable(reason)
    if kernel == "cuda" and not on_cpu and (reason := cuda.unavailable(device)):
        raise BackendUnavailable(reason)
    return kernel
