"""The pack-quantized layout of the compressed-tensors package, what llm-compressor writes and vLLM reads.

A row's codes form one dense little-endian bit stream, element i at bit i * bits, in int32 words (three-bit codes
straddle words). The package counts from -2**(bits-1) and adds 2**(bits-1) before it packs, so what lies in the file are
the same unsigned codes and zero points as in `QuantizedTensor`. Zero points are packed along the outputs, and only
asymmetric linears have them (compressed_tensors/compressors/pack_quantized).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import UserError
from awqbench.formats import compressed_tensors_config
from awqbench.formats.scheme import Scheme
from awqbench.quantization.tensor import QuantizedTensor

name = method = "compressed-tensors"
BITS = (1, 2, 3, 4, 5, 6, 7, 8)
WORD = 32
SUFFIXES = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")


def refuse(scheme: Scheme) -> None:
    """Raise UserError for codes wider than a byte."""
    if scheme.bits not in BITS:
        raise UserError(f"the compressed-tensors format holds codes of 1 to 8 bits, not {scheme.bits}")


def fits(out: int, inputs: int, scheme: Scheme) -> bool:
    """Whether a linear's inputs fill whole groups; its outputs may be any number."""
    return scheme.groups(inputs) > 0


def held(scheme: Scheme) -> Scheme:
    """As it is: codes are dense, and only asymmetric linears have zero points."""
    return scheme


def pack(quantized: QuantizedTensor, scheme: Scheme) -> dict[str, Tensor]:
    """The tensors of a linear [out, in] with groups of g and codes of b bits.

    weight_packed int32 [out, ceil(in * b / 32)], weight_scale [out, in / g] in the scales' own dtype, weight_shape
    int64 [2] and, unless symmetric, weight_zero_point int32 [ceil(out * b / 32), in / g].
    """
    refuse(scheme)
    packed = {
        "weight_packed": pack_bits(quantized.codes, scheme.bits),
        "weight_scale": quantized.scales.contiguous(),
        "weight_shape": torch.tensor(quantized.codes.shape, dtype=torch.int64),
    }
    if not scheme.symmetric:
        packed["weight_zero_point"] = pack_bits(quantized.zeros.T, scheme.bits).T.contiguous()
    elif not bool((quantized.zeros == _middle(scheme)).all()):
        raise ValueError(f"symmetric codes have zero point {_middle(scheme)}, these have others")
    return packed


def unpack(tensors: Mapping[str, Tensor], scheme: Scheme) -> QuantizedTensor:
    """The inverse of `pack`, exact to the bit; scales keep their dtype.

    Zero points that older versions of the package left unpacked, int8 [out, in / g], are read too. Raises UserError
    when the shapes or types don't belong together or contradict the scheme.
    """
    if "weight_g_idx" in tensors:
        raise UserError("it has an activation order (weight_g_idx), which is not read here (allowed: actorder weight)")
    out, inputs = (int(size) for size in tensors["weight_shape"].tolist())
    groups = scheme.groups(inputs)
    if not groups:
        raise UserError(f"its {inputs} inputs are not divided by config.json's {scheme}")
    wanted = {"weight_packed": (out, _words(inputs, scheme.bits)), "weight_scale": (out, groups)}
    for tensor, shape in wanted.items():
        if tuple(tensors[tensor].shape) != shape:
            raise UserError(
                f"{tensor} has shape {list(tensors[tensor].shape)}, but a linear {out} x {inputs} of {scheme} needs"
                f" {list(shape)}"
            )
    packed, scales = tensors["weight_packed"], tensors["weight_scale"]
    if packed.dtype != torch.int32:
        raise UserError(f"weight_packed must be int32, got {packed.dtype}")
    if scales.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise UserError(f"weight_scale must be 16- or 32-bit floating-point numbers, got {scales.dtype}")
    return QuantizedTensor(
        codes=unpack_bits(packed, scheme.bits, inputs),
        scales=scales.contiguous(),
        zeros=_zeros(tensors.get("weight_zero_point"), out, groups, scheme),
        bits=scheme.bits,
        group_size=inputs // groups,
    )


def config(schemes: Mapping[str, Scheme], not_converted: Sequence[str]) -> dict[str, Any]:
    """The quantization_config, with a group for each scheme."""
    for scheme in schemes.values():
        refuse(scheme)
    return compressed_tensors_config.config(schemes, not_converted)


def schemes(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scheme]:
    """The scheme of each linear named, as the package itself would match it."""
    return compressed_tensors_config.schemes(config, names)


def pack_bits(values: Tensor, bits: int) -> Tensor:
    """uint8 [rows, columns] -> int32 [rows, ceil(columns * bits / 32)], the unused last bits 0."""
    rows, columns = values.shape
    count, width, dtype = _unit(bits)
    values = torch.nn.functional.pad(values, (0, -columns % count)).view(rows, -1, count)
    stream = torch.zeros(values.shape[:2], dtype=dtype, device=values.device)
    for element in range(count):
        stream |= values[:, :, element].to(dtype) << (bits * element)
    held = torch.stack([(stream >> (8 * byte) & 0xFF).to(torch.uint8) for byte in range(width)], dim=-1)
    return _resize(held.view(rows, -1), 4 * _words(columns, bits)).flatten().view(torch.int32).view(rows, -1)


def unpack_bits(words: Tensor, bits: int, columns: int) -> Tensor:
    """The inverse of `pack_bits`: uint8 [rows, columns]."""
    rows = words.shape[0]
    count, width, dtype = _unit(bits)
    stored = words.contiguous().flatten().view(torch.uint8).view(rows, -1)
    held = _resize(stored, -(-columns // count) * width).view(rows, -1, width)
    stream = torch.zeros(held.shape[:2], dtype=dtype, device=words.device)
    for byte in range(width):
        stream |= held[:, :, byte].to(dtype) << (8 * byte)
    mask = 2**bits - 1
    values = torch.stack([(stream >> (bits * element) & mask).to(torch.uint8) for element in range(count)], dim=-1)
    return values.view(rows, -1)[:, :columns].contiguous()


def _unit(bits: int) -> tuple[int, int, torch.dtype]:
    """Codes that fill whole bytes together: how many, in how many bytes, and the type of integer that holds them."""
    return (8 // bits, 1, torch.uint8) if 8 % bits == 0 else (8, bits, torch.int64)


def _zeros(stored: Tensor | None, out: int, groups: int, scheme: Scheme) -> Tensor:
    """uint8 [out, groups]."""
    if stored is None:
        if not scheme.symmetric:
            raise UserError(f"weight_zero_point is missing, but config.json says {scheme}")
        return torch.full((out, groups), _middle(scheme), dtype=torch.uint8)
    shape = tuple(stored.shape)
    if stored.dtype == torch.int32 and shape == (_words(out, scheme.bits), groups):
        zeros = unpack_bits(stored.T, scheme.bits, out).T.contiguous()
    elif stored.dtype == torch.int8 and shape == (out, groups):
        zeros = (stored.to(torch.int16) + _middle(scheme)).to(torch.uint8)
    else:
        raise UserError(f"weight_zero_point is {stored.dtype} {list(shape)}, not packed for {out} outputs of {scheme}")
    if scheme.symmetric and not bool((zeros == _middle(scheme)).all()):
        raise UserError("config.json says that it is symmetric, but it has zero points of its own")
    return zeros


def _resize(held: Tensor, width: int) -> Tensor:
    """The first `width` bytes of each row, or the row and zeros."""
    return torch.nn.functional.pad(held, (0, width - held.shape[1])).contiguous()


def _words(columns: int, bits: int) -> int:
    return -(-columns * bits // WORD)


def _middle(scheme: Scheme) -> int:
    return 1 << (scheme.bits - 1)
