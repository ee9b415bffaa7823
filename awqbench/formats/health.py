"""Do a quantized linear's numbers look broken? Scales and zero points are read whole, codes until they vary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from awqbench.formats.compressed_tensors import unpack_bits
from awqbench.formats.shards import Shards
from awqbench.formats.stored import StoredLinear

# AutoAWQ and others let no scale fall below this; a group that sits on it has lost its weights.
FLOOR = 1e-5
# Share of a linear's groups from which tiny scales are worth telling: a few dead groups are in healthy models too.
MANY = 0.01
_FLOAT16 = torch.finfo(torch.float16)
_SAMPLE = 1 << 18  # codes looked at for the largest in use


@dataclass(frozen=True, slots=True)
class Finding:
    """What looks broken: `count` of `of` groups (or rows, or tensors) of a linear, or of the whole checkpoint ("")."""

    linear: str
    what: str
    count: int
    of: int


@dataclass(frozen=True, slots=True)
class Checkup:
    """Facts about one linear that only its numbers tell.

    `codes_bits` are the bits that the largest code seen needs, `symmetric` says that every zero point is in the middle.
    """

    symmetric: bool
    codes_bits: int
    findings: tuple[Finding, ...]


def check_health(shards: Shards, linear: StoredLinear) -> Checkup:
    """Look at one linear's scales, zero points and codes."""
    found: list[tuple[str, int, int]] = []
    scales, zeros = linear.scales(shards), linear.zeros(shards)
    if scales is not None:
        found += _check_scales(scales, linear.bits)
    if zeros is not None and zeros.numel():
        found += _check_zeros(zeros, linear)
    largest, alike = _look_at_codes(shards, linear)
    if alike:
        found.append(("all codes are equal", linear.shape[0], linear.shape[0]))
    bits = max(largest.bit_length(), 1)
    symmetric = zeros is None or any(bool((zeros == 1 << (each - 1)).all()) for each in {bits, linear.bits})
    return Checkup(symmetric, bits, tuple(Finding(linear.name, *each) for each in found))


def _check_scales(scales: Tensor, bits: int) -> list[tuple[str, int, int]]:
    groups = scales.numel()
    values = scales.float()
    finite = values.isfinite()
    size = values.abs()
    tiny = torch.finfo(scales.dtype).tiny if scales.is_floating_point() else 0.0
    floor = (size > 0.98 * FLOOR) & (size < 1.02 * FLOOR)
    counts = {
        "scales are not finite": int((~finite).sum()),
        "scales are zero": int((values == 0).sum()),
        "scales are negative": int((values < 0).sum()),
        "weights can overflow float16": int((finite & (size * (2**bits - 1) > _FLOAT16.max)).sum()),
    }
    found = [(what, count, groups) for what, count in counts.items() if count]
    weak = {
        f"scales lie at the floor of {FLOOR:g}": int(floor.sum()),
        f"scales are subnormal {str(scales.dtype).removeprefix('torch.')}": int(
            ((size < tiny) & (size > 0) & ~floor).sum()
        ),
    }
    return found + [(what, count, groups) for what, count in weak.items() if count > MANY * groups]


def _check_zeros(zeros: Tensor, linear: StoredLinear) -> list[tuple[str, int, int]]:
    first = int(zeros.flatten()[0])
    if not bool((zeros == first).all()):
        return []
    names = {
        0: "zero points are all 0",
        (1 << linear.bits) - 1: f"zero points are all {(1 << linear.bits) - 1}, the largest code",
        # GPTQ's first format stores them less one: read by another convention, every weight is a step off.
        (1 << (linear.bits - 1)) - 1: f"zero points are all {(1 << (linear.bits - 1)) - 1}, one below the middle",
    }
    return [(names[first], zeros.numel(), zeros.numel())] if first in names else []


def _look_at_codes(shards: Shards, linear: StoredLinear) -> tuple[int, bool]:
    """The largest code in a sample, and whether all codes of the linear are one and the same."""
    packed = shards.tensor(linear.tensors["codes"])  # mapped, not read: only the rows looked at are
    if packed.dtype != torch.int32 or packed.dim() != 2 or not packed.numel():
        return (1 << linear.bits) - 1, False
    along_rows = linear.layout.startswith("gptq")
    # A whole number of bit streams' periods, so that 3-bit codes begin with the rows that are taken.
    step = max(1, _SAMPLE // (packed.shape[1] * 32 // linear.bits) // linear.bits) * linear.bits
    largest, one = 0, None
    for start in range(0, packed.shape[0], step):
        rows = packed[start : start + step]
        rows = rows.T if along_rows else rows
        width = linear.shape[1] if linear.layout == "compressed-tensors" else rows.shape[1] * 32 // linear.bits
        codes = unpack_bits(rows, linear.bits, width)
        low, high = int(codes.min()), int(codes.max())
        largest, one = max(largest, high), low if one is None else one
        if low != high or low != one:
            return largest, False
    return largest, True


def check_vectors(shards: Shards, names: Iterable[str]) -> list[Finding]:
    """Norms and biases with values that are not finite: small, and one of them ruins every token."""
    found = []
    for name in names:
        tensor = shards.tensor(name)
        broken = int((~tensor.isfinite()).sum()) if tensor.is_floating_point() else 0
        if broken:
            found.append(Finding(name, "values are not finite", broken, tensor.numel()))
    return found
