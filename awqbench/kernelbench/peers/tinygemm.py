"""torch's own 4-bit kernel (tinygemm): `_weight_int4pack_mm`, bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.problem import Shape
from awqbench.quantization.tensor import QuantizedTensor

GROUPS = (32, 64, 128, 256)
MIDDLE = 8


class Tinygemm(Peer):
    """It computes (code - 8) * scale + zero; AWQ maps exactly but for the rounding of both to bfloat16."""

    name = "tinygemm"
    note = "bfloat16; zero = (8 - z) * s and scale rounded to bfloat16; inner k tiles: the most that k allows"
    url = "https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/cuda/int4mm.cu"
    dtypes = (torch.bfloat16,)

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """It wants n in eights, k in tiles of 32 and one of four group sizes."""
        if shape.group not in GROUPS:
            return f"groups of {shape.group} (it has {', '.join(map(str, GROUPS))})"
        if shape.n % 8 or shape.k % 32:
            return f"{shape.n}x{shape.k} (n in multiples of 8, k of 32)"
        return self.wrong_dtype(dtype)

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        """torch's layout: even columns in the high nibbles."""
        k = weights.codes.shape[1]
        inner = next(tiles for tiles in (8, 4, 2) if k % (16 * tiles) == 0)
        bytes_ = (weights.codes[:, ::2] << 4 | weights.codes[:, 1::2]).contiguous()
        scales = weights.scales.double()
        zeros = (MIDDLE - weights.zeros.double()) * scales
        both = torch.stack([scales.T, zeros.T], dim=-1).to(torch.bfloat16).contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack(bytes_, inner)
        return {"weight": packed, "scales": both, "group": weights.group_size, "bias": bias}

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """x W^T (+ bias)."""
        y: Tensor = torch.ops.aten._weight_int4pack_mm(x, packed["weight"], packed["group"], packed["scales"])
        return y if packed["bias"] is None else y + packed["bias"]
