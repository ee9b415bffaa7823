"""The GPTQ layout of GPTQModel, AutoGPTQ and the original: read here, never written.

Codes lie along the input, zero points along the output, each row a dense little-endian bit stream in int32 words as in
`compressed_tensors.unpack_bits` (three-bit codes straddle words). `g_idx` names each input's group: with an activation
order (desc_act) the members of a group are not neighbours. The first version of the format stores zero points less one,
the second as they are (gptqmodel/utils/model.py, convert_gptq_v1_to_v2_format_module).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import UserError
from awqbench.formats.compressed_tensors import unpack_bits
from awqbench.formats.scheme import PER_CHANNEL, Scheme
from awqbench.formats.settings import expression
from awqbench.quantization.tensor import QuantizedTensor

METHOD = "gptq"
BITS = (2, 3, 4, 8)


@dataclass
class Gptq:
    """One version of the format; `less_one`: what its stored zero points lack."""

    name: str
    less_one: bool
    method: str = METHOD
    SUFFIXES: tuple[str, ...] = ("qweight", "qzeros", "scales", "g_idx")

    def unpack(self, tensors: Mapping[str, Tensor], scheme: Scheme) -> QuantizedTensor:
        """Codes, scales and zero points of a linear, inputs sorted by their group where they are not neighbours.

        qweight int32 [in * bits / 32, out], qzeros int32 [in / g, out * bits / 32], scales float [in / g, out], g_idx
        [in]. Raises UserError when the shapes or types don't belong together or contradict the scheme.
        """
        qweight, qzeros, scales, g_idx = (tensors[suffix] for suffix in self.SUFFIXES)
        inputs, out = g_idx.numel(), qweight.shape[1]
        groups = scheme.groups(inputs)
        if not groups:
            raise UserError(f"its {inputs} inputs are not divided by config.json's {scheme}")
        wanted = {
            "qweight": (-(-inputs * scheme.bits // 32), out),
            "qzeros": (groups, -(-out * scheme.bits // 32)),
            "scales": (groups, out),
        }
        for tensor, shape in wanted.items():
            if tuple(tensors[tensor].shape) != shape:
                raise UserError(
                    f"{tensor} has shape {list(tensors[tensor].shape)}, but a linear {out} x {inputs} of {scheme} needs"
                    f" {list(shape)}"
                )
        for tensor in ("qweight", "qzeros"):
            if tensors[tensor].dtype != torch.int32:
                raise UserError(f"{tensor} must be int32, got {tensors[tensor].dtype}")
        if not scales.is_floating_point():
            raise UserError(f"scales must be floating-point numbers, got {scales.dtype}")
        codes, order = unpack_bits(qweight.T, scheme.bits, inputs), _order(g_idx, groups)
        return QuantizedTensor(
            codes=codes.contiguous() if order is None else codes[:, order],
            scales=scales.T.contiguous(),
            zeros=unpack_zeros(qzeros, scheme.bits, out, self.less_one).T.contiguous(),
            bits=scheme.bits,
            group_size=inputs // groups,
            order=order,
        )

    def schemes(self, config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scheme]:
        """The scheme of each linear named: the quantization_config's, or that of the first of its `dynamic` patterns
        that fits. Raises UserError for what is not read here."""
        own = config.get("dynamic") or {}
        patterns = [(expression(str(key).removeprefix("+:")), said) for key, said in own.items() if said]
        _scheme(config)
        return {
            name: _scheme({**config, **next((said for fits, said in patterns if fits.match(name)), {})})
            for name in names
        }

    def held(self, scheme: Scheme) -> Scheme:
        """With zero points always."""
        return Scheme(scheme.bits, scheme.group_size)


FIRST, SECOND = Gptq("gptq", True), Gptq("gptq-v2", False)


def version(config: Mapping[str, Any]) -> Gptq:
    """The version that a quantization_config names; the first where it names none. Raises UserError for others."""
    found = str(config.get("checkpoint_format") or config.get("format") or "gptq")
    if found not in ("gptq", "gptq_v2") or config.get("is_marlin_format"):
        kind = "marlin" if config.get("is_marlin_format") else found
        raise UserError(f"its GPTQ checkpoint_format is {kind}, which is not read here (allowed: gptq, gptq_v2)")
    return SECOND if found == "gptq_v2" else FIRST


def unpack_zeros(words: Tensor, bits: int, outputs: int, less_one: bool) -> Tensor:
    """int32 [groups, words] -> uint8 zero points [groups, outputs]."""
    if not less_one:
        return unpack_bits(words, bits, outputs)
    if 32 % bits == 0:
        # One was taken from whole words: a zero point of 0 borrows from its neighbour, and so it must be given back.
        ones = sum(1 << shift for shift in range(0, 32, bits))
        back = (words.to(torch.int64) + ones + 2**31) % 2**32 - 2**31
        return unpack_bits(back.to(torch.int32), bits, outputs)
    return (unpack_bits(words, bits, outputs) + 1) & ((1 << bits) - 1)


def _scheme(said: Mapping[str, Any]) -> Scheme:
    bits, size = said.get("bits"), said.get("group_size", 128)
    if bits not in BITS or said.get("pack_dtype", "int32") != "int32":
        raise UserError(
            f"it is GPTQ with {bits} bits in {said.get('pack_dtype', 'int32')}"
            f" (allowed: {', '.join(map(str, BITS))} bits in int32)"
        )
    if not isinstance(size, int) or (size < 1 and size != PER_CHANNEL):
        raise UserError(f"its group_size is {size!r} (allowed: 1 or more, or -1: per channel)")
    return Scheme(bits, size, bool(said.get("sym", False)))


def _order(g_idx: Tensor, groups: int) -> Tensor | None:
    """The inputs sorted by group, int64 [in]; None where groups are neighbours in their order already."""
    of, size = g_idx.flatten().to(torch.int64), g_idx.numel() // groups
    if torch.equal(of, torch.arange(of.numel()) // size):
        return None
    if int(of.min()) < 0 or not bool((torch.bincount(of, minlength=groups) == size).all()):
        raise UserError(f"its g_idx does not give each of {groups} groups {size} inputs")
    return torch.argsort(of, stable=True)
