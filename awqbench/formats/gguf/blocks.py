"""Integer codes as llama.cpp's blocks of 32 weights, without rounding the weights again.

A block of a row holds a float16 scale d and, in Q4_1, a float16 offset m (ggml-common.h):
Q4_0 is d * (q - 8), Q4_1 is d * q + m with q in 0 .. 15, Q8_0 is d * q with q in -128 .. 127.
So the codes carry over as they are. Only m = -zero * scale of Q4_1 is rounded, to eleven bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from awqbench.errors import UserError
from awqbench.formats.scheme import Scheme
from awqbench.ops.linear import ORDERED
from awqbench.quantization.tensor import QuantizedTensor

BLOCK = 32
Bytes = npt.NDArray[np.uint8]


def block_type(inputs: int, scheme: Scheme) -> Type | None:
    """The type whose blocks hold a linear with these codes; None where no type does.

    Codes of 2 and 3 bits travel in four. Asymmetric 8 bits, groups that are no multiple of 32 and rows that 32 does not
    divide fit no type.
    """
    group = inputs if scheme.groups(inputs) == 1 else scheme.group_size
    if not scheme.groups(inputs) or group % BLOCK:
        return None
    if scheme.bits <= 4:
        return Type.Q4_0 if scheme.symmetric else Type.Q4_1
    return Type.Q8_0 if scheme.bits == 8 and scheme.symmetric else None


def pack_blocks(quantized: QuantizedTensor, kind: Type) -> Bytes:
    """The rows of a file's tensor, uint8 [out, bytes].

    Raises UserError when a scale is beyond float16, and for an activation order, which blocks do not have.
    """
    if quantized.order is not None:
        raise UserError(ORDERED)
    out, inputs = quantized.codes.shape
    repeats = quantized.group_size // BLOCK
    scales = quantized.scales.float().numpy().repeat(repeats, axis=1)
    zeros = quantized.zeros.numpy().repeat(repeats, axis=1)
    codes = quantized.codes.numpy().reshape(out, inputs // BLOCK, BLOCK)
    parts = [_half(scales)]
    if kind == Type.Q4_1:
        parts.append(_half(-zeros.astype(np.float32) * scales))
    if kind == Type.Q8_0:
        parts.append((codes.astype(np.int16) - zeros[..., None]).astype(np.int8).view(np.uint8))
    else:
        nibbles: Bytes = codes if kind == Type.Q4_1 else codes + (8 - zeros[..., None])
        parts.append(nibbles[..., : BLOCK // 2] + 16 * nibbles[..., BLOCK // 2 :])
    return np.concatenate(parts, axis=-1).reshape(out, -1)


def _half(values: npt.NDArray[np.float32]) -> Bytes:
    """float32 [out, blocks] -> the bytes of float16, uint8 [out, blocks, 2]."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise UserError(f"a scale or offset of {np.abs(values).max():g} is beyond float16, which GGUF blocks use")
    return halves.view(np.uint8).reshape(*values.shape, 2)
