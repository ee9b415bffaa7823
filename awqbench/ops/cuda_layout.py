"""The weight layout of the CUDA kernels (kernels/cuda/layout.h), to and from plain codes. On any device, exactly.

`tiles` int32 [N64 / 64, K64 / 64, 4, 32, 4]: tiles of 64 rows x 64 k; the word at [.., block, lane, fragment] holds 8
codes of the rows 16 block + lane / 4 (+ 8) and the k's 16 fragment + 2 (lane % 4) (+ 1, + 8, + 9), in the order of the
A fragment of mma.m16n8k16. `steps` uint8 [N64 / 64, groups, 160]: 64 float16 scales and 64 zero points of 4 bits.
N64 and K64 are N and K rounded up to 64; the padding is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

ROWS = K_TILE = 64
STEP_BYTES, SCALE_BYTES = 160, 128
LARGEST_ZERO = 15
_CHUNK_BYTES = 2**26  # bounds the temporary copy of codes while packing


def fits(inputs: int, group_size: int) -> bool:
    """Whether the layout takes groups of this size: 32, a multiple of 64, or a whole row of a multiple of 32."""
    if group_size < 1 or inputs < 1 or inputs % group_size:
        return False
    return group_size == 32 or group_size % 64 == 0 or (group_size == inputs and inputs % 32 == 0)


def shapes(out_features: int, inputs: int, group_size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of `tiles` and `steps`."""
    rows = -(-out_features // ROWS)
    return (rows, -(-inputs // K_TILE), 4, 32, 4), (rows, inputs // group_size, STEP_BYTES)


def pack(codes: Tensor, scales: Tensor, zeros: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """`tiles` and `steps` of uint8 codes 0 .. 15 [N, K], float16 scales and uint8 zeros 0 .. 15 [N, K / group_size].

    Raises ValueError for sizes, types or zero points that the layout does not hold.
    """
    (n, k), groups = codes.shape, scales.shape[1]
    if not fits(k, group_size) or groups * group_size != k or not scales.shape == zeros.shape == (n, groups):
        raise ValueError(f"codes {n} x {k}, scales {list(scales.shape)}, zeros {list(zeros.shape)}, group {group_size}")
    if scales.dtype != torch.float16:
        raise ValueError(f"scales are {scales.dtype}, not float16")
    if n and int(zeros.max()) > LARGEST_ZERO:
        raise ValueError(f"a zero point is {int(zeros.max())}: 4 bits hold 0 to {LARGEST_ZERO}")
    shape, _ = shapes(n, k, group_size)
    tiles = torch.empty(shape, dtype=torch.int32, device=codes.device)
    step = max(1, _CHUNK_BYTES // (ROWS * K_TILE * shape[1]))
    for begin in range(0, shape[0], step):
        part = tiles[begin : begin + step]
        part.copy_(
            _pack_codes(_padded(codes[begin * ROWS : (begin + step) * ROWS], len(part) * ROWS, shape[1] * K_TILE))
        )
    return tiles, _pack_steps(_padded(scales, shape[0] * ROWS, groups), _padded(zeros, shape[0] * ROWS, groups))


def unpack(
    tiles: Tensor, steps: Tensor, out_features: int, inputs: int, group_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of `pack`: codes [N, K], scales and zeros [N, K / group_size], bit for bit."""
    scales, zeros = unpack_steps(steps, out_features)
    return unpack_codes(tiles, out_features, inputs), scales, zeros


def unpack_codes(tiles: Tensor, out_features: int, inputs: int) -> Tensor:
    """uint8 codes [out_features, inputs] of `tiles`, which may be some of the row tiles of a weight."""
    rows, columns = tiles.shape[:2]
    codes = torch.empty(rows * ROWS, columns * K_TILE, dtype=torch.uint8, device=tiles.device)
    # [row tile, k tile, block, g, t, fragment, odd, upper]: see _pack_codes.
    packed = tiles.contiguous().view(torch.uint8).view(rows, columns, 4, 8, 4, 4, 2, 2).permute(0, 2, 3, 1, 5, 7, 4, 6)
    halves = codes.view(rows, 4, 2, 8, columns, 4, 2, 4, 2)
    halves[:, :, 0] = packed & 0xF
    halves[:, :, 1] = packed >> 4
    return codes[:out_features, :inputs].contiguous()


def unpack_steps(steps: Tensor, out_features: int) -> tuple[Tensor, Tensor]:
    """float16 scales and uint8 zeros [out_features, groups]."""
    rows, groups = steps.shape[:2]
    scales = steps[..., :SCALE_BYTES].contiguous().view(torch.float16).view(rows, groups, 4, 8, 2)
    packed = steps[..., SCALE_BYTES:].reshape(rows, groups, 4, 8)
    zeros = torch.stack((packed & 0xF, packed >> 4), dim=-1)
    first, second = (part.permute(0, 2, 4, 3, 1).reshape(-1, groups)[:out_features] for part in (scales, zeros))
    return first.contiguous(), second.contiguous()


def _padded(values: Tensor, rows: int, columns: int) -> Tensor:
    lacking = (columns - values.shape[1], rows - values.shape[0])
    return pad(values, (0, lacking[0], 0, lacking[1])) if any(lacking) else values


def _pack_codes(codes: Tensor) -> Tensor:
    """int32 [row tiles, k tiles, 4, 32, 4] of codes whose sizes are multiples of 64."""
    rows, columns = codes.shape[0] // ROWS, codes.shape[1] // K_TILE
    # row = 64 rt + 16 block + 8 half + g, k = 64 kt + 16 fragment + 8 upper + 2 t + odd. The nibble is half + 2 upper
    # + 4 odd: both halves share byte upper + 2 odd of the word, the first in its low nibble.
    halves = codes.reshape(rows, 4, 2, 8, columns, 4, 2, 4, 2)
    packed = halves[:, :, 0] | (halves[:, :, 1] << 4)  # [rt, block, g, kt, fragment, upper, t, odd]
    ordered = packed.permute(0, 3, 1, 2, 6, 4, 7, 5).contiguous()  # [rt, kt, block, g, t, fragment, odd, upper]
    return ordered.view(rows, columns, 4, 32, 16).view(torch.int32)


def _pack_steps(scales: Tensor, zeros: Tensor) -> Tensor:
    """uint8 [row tiles, groups, 160]."""
    rows, groups = scales.shape[0] // ROWS, scales.shape[1]
    ordered = scales.reshape(rows, 4, 2, 8, groups).permute(0, 4, 1, 3, 2).reshape(rows, groups, 64)
    halves = zeros.reshape(rows, 4, 2, 8, groups)
    packed = (halves[:, :, 0] | (halves[:, :, 1] << 4)).permute(0, 3, 1, 2).reshape(rows, groups, 32)
    return torch.cat((ordered.contiguous().view(torch.uint8), packed), dim=-1)
