"""`torch.ops.awqbench.w4a16_linear`: the one operator behind `QuantizedLinear`, known to torch.compile and FakeTensor.

w4a16_linear(x, codes, scales, zeros, bias, group_size, width, kernel) -> [..., N] in x's type. x float [..., K];
`codes` in the layout of the kernel, `width` bits each (4 or 8); `scales` [N, groups], float16 for the kernel `cpu`
(`torch-int4`: bfloat16 [groups, N, 2]); `zeros` uint8 [N, groups]. Inference only: no gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.ops import cpu, dequantize, torch_int4

# Library.define rather than torch.library.custom_op, whose wrapper adds 3 to 8 microseconds to each call: a decoding
# step makes hundreds.
_library = torch.library.Library("awqbench", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "w4a16_linear(Tensor x, Tensor codes, Tensor scales, Tensor zeros, Tensor? bias, int group_size, int width,"
    " str kernel) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
)


def _on_cpu(
    x: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None, group_size: int, width: int,
    kernel: str,
) -> Tensor:  # fmt: skip
    if kernel == "cpu":
        return cpu.linear(x, codes, scales, zeros, bias, group_size, width)
    rows = x.reshape(-1, x.shape[-1])
    if rows.shape[0] == 0:
        out = rows.new_empty(0, zeros.shape[0])
    elif kernel == "torch-int4":
        out = torch_int4.linear(rows, codes, scales, bias, group_size)
    else:
        out = dequantize.linear(rows, codes, scales, zeros, bias, group_size, width)
    return out.view(*x.shape[:-1], zeros.shape[0])


def _anywhere(
    x: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None, group_size: int, width: int,
    kernel: str,
) -> Tensor:  # fmt: skip
    if kernel == "torch-int4":
        raise RuntimeError("weights packed for torch-int4 run on a CPU only: build the layer on its device")
    out = dequantize.linear(x.reshape(-1, x.shape[-1]), codes, scales, zeros, bias, group_size, width)
    return out.view(*x.shape[:-1], zeros.shape[0])


def _shape_only(
    x: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None, group_size: int, width: int,
    kernel: str,
) -> Tensor:  # fmt: skip
    return x.new_empty(*x.shape[:-1], zeros.shape[0])


_library.impl("w4a16_linear", _on_cpu, "CPU")  # type: ignore[no-untyped-call]
_library.impl("w4a16_linear", _anywhere, "CUDA")  # type: ignore[no-untyped-call]
torch.library.register_fake("awqbench::w4a16_linear", _shape_only, lib=_library)
w4a16_linear = torch.ops.awqbench.w4a16_linear.default
