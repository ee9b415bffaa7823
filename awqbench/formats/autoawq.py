"""The AutoAWQ GEMM layout of one linear: eight 4-bit codes in each int32, in an interleaved order.

Nibble i of word c holds output column 8c + ORDER[i] (AutoAWQ, awq/utils/packing_utils.py). Three-bit codes travel in
the same four-bit nibbles, so that every reader of the format reads them; only this project's `quantize.json` tells that
eight of the sixteen values are never used.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from awqbench.errors import UserError
from awqbench.quantization.tensor import QuantizedTensor

BITS = 4
PER_WORD = 32 // BITS
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
SUFFIXES = ("qweight", "qzeros", "scales")


def pack(quantized: QuantizedTensor) -> dict[str, Tensor]:
    """The three tensors of a linear [out, in] with groups of g.

    qweight int32 [in, out / 8], qzeros int32 [in / g, out / 8], scales float16 [in / g, out]. Raises UserError when
    `out` is no multiple of 8 or a code needs more than four bits.
    """
    out = quantized.codes.shape[0]
    if out % PER_WORD:
        raise UserError(f"the AutoAWQ layout needs an output size divisible by {PER_WORD}, got {out}")
    if quantized.bits > BITS:
        raise UserError(f"the AutoAWQ layout holds codes of at most {BITS} bits, got {quantized.bits}")
    return {
        "qweight": _pack_words(quantized.codes.T),
        "qzeros": _pack_words(quantized.zeros.T),
        "scales": quantized.scales.T.to(torch.float16).contiguous(),
    }


def unpack(tensors: Mapping[str, Tensor], bits: int = BITS) -> QuantizedTensor:
    """The inverse of `pack`, exact to the bit. Raises UserError when the shapes or types don't belong together."""
    qweight, qzeros, scales = (tensors[suffix] for suffix in SUFFIXES)
    inputs, words = qweight.shape
    groups = qzeros.shape[0]
    wanted = {"qzeros": (groups, words), "scales": (groups, words * PER_WORD)}
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            raise UserError(
                f"{name} has shape {list(tensors[name].shape)}, but qweight {list(qweight.shape)} needs {list(shape)}"
            )
    if groups == 0 or inputs % groups:
        raise UserError(f"{groups} groups do not divide {inputs} inputs")
    for name in ("qweight", "qzeros"):
        if tensors[name].dtype != torch.int32:
            raise UserError(f"{name} must be int32, got {tensors[name].dtype}")
    if scales.dtype != torch.float16:
        raise UserError(f"scales must be float16, got {scales.dtype}")
    return QuantizedTensor(
        codes=_unpack_words(qweight).T.contiguous(),
        scales=scales.T.contiguous(),
        zeros=_unpack_words(qzeros).T.contiguous(),
        bits=bits,
        group_size=inputs // groups,
    )


def _pack_words(values: Tensor) -> Tensor:
    """uint8 [rows, columns] -> int32 [rows, columns / 8]."""
    columns = values.reshape(values.shape[0], -1, PER_WORD)
    words = torch.zeros(columns.shape[:2], dtype=torch.int32, device=values.device)
    for nibble, column in enumerate(ORDER):
        words |= columns[:, :, column].to(torch.int32) << (BITS * nibble)
    return words


def _unpack_words(words: Tensor) -> Tensor:
    """int32 [rows, words] -> uint8 [rows, words * 8]."""
    columns = torch.empty(*words.shape, PER_WORD, dtype=torch.uint8, device=words.device)
    for nibble, column in enumerate(ORDER):
        columns[:, :, column] = ((words >> (BITS * nibble)) & 0xF).to(torch.uint8)
    return columns.view(words.shape[0], -1)
