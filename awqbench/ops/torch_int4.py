"""torch's own packed int4 matmul on the CPU: a bfloat16 path that needs no compiler.

Its float32 and float16 variants are right but 27 to 77 times slower than a dense matmul on AVX2, so they're not used.
The scales are rounded to bfloat16, which moves each weight by up to 2**-9 of its value.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUPS = (32, 64, 128, 256)
_INNER_K_TILES = 2  # ignored on a CPU, but checked


def fits(out_features: int, group_size: int) -> bool:
    """Whether torch's op takes these sizes."""
    return group_size in GROUPS and out_features % 16 == 0 and hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu")


def pack(codes: Tensor, scales: Tensor, zeros: Tensor) -> tuple[Tensor, Tensor]:
    """torch's weight layout, and bfloat16 scales with offsets [groups, N, 2]: value = (code - 8) * scale + offset."""
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), _INNER_K_TILES)
    scale = scales.float()
    return packed, torch.stack((scale, (8 - zeros.float()) * scale), dim=-1).transpose(0, 1).bfloat16().contiguous()


def unpack(packed: Tensor, inputs: int, group_size: int) -> Tensor:
    """uint8 codes [N, inputs] back from the layout, which torch doesn't document: identity rows read the codes out."""
    rows = packed.shape[0]
    plain = torch.tensor([1.0, 8.0], dtype=torch.bfloat16).expand(inputs // group_size, rows, 2).contiguous()
    step = max(1, min(inputs, 2**22 // inputs))
    columns = []
    for begin in range(0, inputs, step):
        identity = torch.zeros(min(step, inputs - begin), inputs, dtype=torch.bfloat16)
        identity[torch.arange(identity.shape[0]), torch.arange(begin, begin + identity.shape[0])] = 1
        columns.append(torch.ops.aten._weight_int4pack_mm_for_cpu(identity, packed, group_size, plain))
    return torch.cat(columns).T.round().to(torch.uint8).contiguous()


def linear(x: Tensor, packed: Tensor, scales_and_offsets: Tensor, bias: Tensor | None, group_size: int) -> Tensor:
    """x [rows, K] times the transposed weight, in bfloat16, returned in x's type."""
    inputs = x.to(torch.bfloat16).contiguous()
    out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(inputs, packed, group_size, scales_and_offsets).to(x.dtype)
    return out if bias is None else out + bias.to(x.dtype)
