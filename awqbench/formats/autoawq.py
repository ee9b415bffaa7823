"""The AutoAWQ GEMM layout of one linear: eight 4-bit codes in each int32, in an interleaved order.

Nibble i of word c holds output column 8c + ORDER[i] (AutoAWQ, awq/utils/packing_utils.py). Codes of two or three bits
travel in the same four-bit nibbles, so that every reader of the format reads them; only this project's `quantize.json`
tells that most of the sixteen values are never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import UserError
from awqbench.formats.scheme import Scheme
from awqbench.quantization.tensor import QuantizedTensor

name = "autoawq"
method = "awq"
GEMM = "gemm"
BITS = 4
PER_WORD = 32 // BITS
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
SUFFIXES = ("qweight", "qzeros", "scales")
# What AutoAWQ's own quant_config.json called these, and other tools still do.
_OLD_KEYS = {"w_bit": "bits", "wbits": "bits", "q_group_size": "group_size"}


def refuse(scheme: Scheme) -> None:
    """Raise UserError for codes wider than a nibble."""
    if not 1 <= scheme.bits <= BITS:
        raise UserError(
            f"the autoawq format holds codes of at most {BITS} bits, not {scheme.bits}"
            " (allowed: format compressed-tensors)"
        )


def fits(out: int, inputs: int, scheme: Scheme) -> bool:
    """Whether a linear's outputs fill whole words and its inputs whole groups."""
    return out % PER_WORD == 0 and scheme.groups(inputs) > 0


def held(scheme: Scheme) -> Scheme:
    """Nibbles, whatever the codes use of them, and zero points always."""
    return Scheme(BITS, scheme.group_size)


def pack(quantized: QuantizedTensor, scheme: Scheme) -> dict[str, Tensor]:
    """The three tensors of a linear [out, in] with groups of g.

    qweight int32 [in, out / 8], qzeros int32 [in / g, out / 8], scales float16 [in / g, out]. Zero points are written
    for symmetric quantization too (all 8): readers of the format expect them. Raises UserError when `out` is no
    multiple of 8, a code needs more than four bits, or a scale is no float16 number.
    """
    out = quantized.codes.shape[0]
    refuse(scheme)
    if out % PER_WORD:
        raise UserError(f"the autoawq format needs an output size divisible by {PER_WORD}, got {out}")
    scales = quantized.scales.to(torch.float16)
    if not torch.equal(scales.to(quantized.scales.dtype), quantized.scales):
        raise UserError(
            "the autoawq format holds float16 scales, and these are not (allowed: format compressed-tensors)"
        )
    return {
        "qweight": pack_words(quantized.codes.T),
        "qzeros": pack_words(quantized.zeros.T),
        "scales": scales.T.contiguous(),
    }


def unpack(tensors: Mapping[str, Tensor], scheme: Scheme) -> QuantizedTensor:
    """The inverse of `pack`, exact to the bit; scales may have any float dtype.

    Raises UserError when the shapes or types don't belong together or contradict the scheme's group size.
    """
    if "g_idx" in tensors:
        raise UserError("it has an activation order (g_idx), which is not read here (allowed: groups of neighbours)")
    qweight, qzeros, scales = (tensors[suffix] for suffix in SUFFIXES)
    inputs, words = qweight.shape
    groups = qzeros.shape[0]
    wanted = {"qzeros": (groups, words), "scales": (groups, words * PER_WORD)}
    for tensor, shape in wanted.items():
        if tuple(tensors[tensor].shape) != shape:
            raise UserError(
                f"{tensor} has shape {list(tensors[tensor].shape)},"
                f" but qweight {list(qweight.shape)} needs {list(shape)}"
            )
    if groups == 0 or inputs % groups:
        raise UserError(f"{groups} groups do not divide {inputs} inputs")
    if groups != scheme.groups(inputs):
        raise UserError(f"{groups} groups of {inputs // groups} weights, but config.json says {scheme}")
    for tensor in ("qweight", "qzeros"):
        if tensors[tensor].dtype != torch.int32:
            raise UserError(f"{tensor} must be int32, got {tensors[tensor].dtype}")
    if not scales.is_floating_point():
        raise UserError(f"scales must be floating-point numbers, got {scales.dtype}")
    return QuantizedTensor(
        codes=_unpack_words(qweight).T.contiguous(),
        scales=scales.T.contiguous(),
        zeros=_unpack_words(qzeros).T.contiguous(),
        bits=scheme.bits,
        group_size=inputs // groups,
    )


def config(schemes: Mapping[str, Scheme], not_converted: Sequence[str]) -> dict[str, Any]:
    """The quantization_config that AutoAWQ, vLLM and transformers read. UserError when there is more than one scheme.

    It says 4 bits whatever the codes use, and that there are zero points, which symmetric quantization has too.
    """
    groups = {scheme.group_size for scheme in schemes.values()}
    if len(set(schemes.values())) > 1:
        found = ", ".join(str(scheme) for scheme in sorted(set(schemes.values())))
        raise UserError(f"the autoawq format holds one scheme, got {found} (allowed: format compressed-tensors)")
    for scheme in schemes.values():
        refuse(scheme)
    return {
        "quant_method": method,
        "version": GEMM,
        "bits": BITS,
        "group_size": groups.pop() if groups else -1,
        "zero_point": True,
        "modules_to_not_convert": list(not_converted),
    }


def schemes(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scheme]:
    """The one scheme of a quantization_config, for each linear named; also in the words of old AutoAWQ files.

    Raises UserError for what is not GEMM, 4 bits and with zero points.
    """
    said = {_OLD_KEYS.get(key, key): value for key, value in config.items()}
    kind, bits, points = version(said), said.get("bits", BITS), said.get("zero_point", True)
    if kind != GEMM or bits != BITS or not points:
        raise UserError(
            f"it is AWQ version {kind}, {bits} bits, zero_point {points}"
            f" (allowed: version gemm, {BITS} bits, zero_point true)"
        )
    size = said.get("group_size", 128)
    if not isinstance(size, int) or (size < 1 and size != -1):
        raise UserError(f"its group_size is {size!r} (allowed: 1 or more, or -1: per channel)")
    return dict.fromkeys(names, Scheme(BITS, size))


def version(config: Mapping[str, Any]) -> str:
    """Which of AutoAWQ's layouts a quantization_config names; GEMM where it names none."""
    return str(config.get("version") or config.get("format") or GEMM).lower()


def pack_words(values: Tensor, order: Sequence[int] = ORDER) -> Tensor:
    """uint8 0 .. 15 [rows, columns] -> int32 [rows, columns / 8]; nibble i of a word holds column order[i] of its 8."""
    columns = values.reshape(values.shape[0], -1, PER_WORD)
    words = torch.zeros(columns.shape[:2], dtype=torch.int32, device=values.device)
    for nibble, column in enumerate(order):
        words |= columns[:, :, column].to(torch.int32) << (BITS * nibble)
    return words


def _unpack_words(words: Tensor) -> Tensor:
    """int32 [rows, words] -> uint8 [rows, words * 8]."""
    columns = torch.empty(*words.shape, PER_WORD, dtype=torch.uint8, device=words.device)
    for nibble, column in enumerate(ORDER):
        columns[:, :, column] = ((words >> (BITS * nibble)) & 0xF).to(torch.uint8)
    return columns.view(words.shape[0], -1)
