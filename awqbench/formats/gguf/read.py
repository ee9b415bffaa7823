"""What a GGUF file is, read from its header and the scales of its blocks; the file is mapped, not loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, ReaderTensor
from gguf.constants import GGML_QUANT_SIZES

from awqbench.errors import UserError
from awqbench.formats.health import Finding

_FLOATS = {Type.F64, Type.F32, Type.F16, Type.BF16}
# Byte offsets of the float16 scales and offsets in a block, weights that share a scale, and whether zero is the middle
# (ggml-common.h).
_BLOCKS: dict[Type, tuple[tuple[int, ...], int, bool]] = {
    Type.Q4_0: ((0,), 32, True), Type.Q4_1: ((0, 2), 32, False), Type.Q5_0: ((0,), 32, True),
    Type.Q5_1: ((0, 2), 32, False), Type.Q8_0: ((0,), 32, True), Type.Q2_K: ((80, 82), 16, False),
    Type.Q3_K: ((108,), 16, True), Type.Q4_K: ((0, 2), 32, False), Type.Q5_K: ((0, 2), 32, False),
    Type.Q6_K: ((208,), 16, True), Type.IQ4_NL: ((0,), 32, True), Type.IQ4_XS: ((0,), 32, True),
}  # fmt: skip
_PLACES = {"token_embd": "embedding", "position_embd": "embedding", "output": "head"}


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that `path` is, or that lies alone in the folder `path`; None where there's none."""
    found = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if path.is_file() and path.suffix != ".gguf":
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise UserError(f"{path} is no GGUF file (allowed: a checkpoint folder, a GGUF file)")
    if len(found) > 1:
        raise UserError(f"{path} holds several GGUF files: name one ({', '.join(file.name for file in found)})")
    return found[0] if found else None


def inspect_gguf(file: Path) -> dict[str, Any]:
    """The facts of `summary.inspect_checkpoint` for a GGUF file. Raises UserError for one that cannot be read."""
    try:
        reader = GGUFReader(file)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise UserError(f"{file} is not a GGUF file, or is truncated: {error}") from None
    architecture = _field(reader, "general.architecture")
    quantized = [tensor for tensor in reader.tensors if tensor.tensor_type not in _FLOATS]
    linears = [tensor for tensor in quantized if _place(tensor) == "block"]
    kept = [tensor for tensor in reader.tensors if len(tensor.shape) > 1 and tensor not in linears]
    schemes = _schemes(linears)
    weights = sum(int(tensor.n_elements) for tensor in linears)
    kinds = Counter({"quantized": 0, "matrices": 0, "vectors": 0})
    for tensor in reader.tensors:
        matrix = "matrices" if len(tensor.shape) > 1 else "vectors"
        kinds["quantized" if tensor.tensor_type not in _FLOATS else matrix] += int(tensor.n_bytes)
    return {
        "format": "gguf",
        "quantized": bool(quantized),
        "architecture": architecture,
        "model_type": architecture,
        "name": _field(reader, "general.name"),
        **{key: schemes[0][key] if schemes else None for key in ("bits", "group_size", "symmetric")},
        "effective_bits": max((row["bits"] for row in schemes), default=None),
        "schemes": schemes,
        "bits_per_weight": round(8 * sum(int(each.n_bytes) for each in linears) / weights, 4) if weights else None,
        "linears": len(linears),
        "quantized_linears": {
            tensor.name.removesuffix(".weight"): {
                "shape": _shape(tensor), "type": tensor.tensor_type.name, "bits": _bits(tensor.tensor_type),
                "group_size": _group(tensor.tensor_type),
            }
            for tensor in linears
        },
        "not_quantized": [
            {
                "name": tensor.name.removesuffix(".weight"), "place": _place(tensor), "shape": _shape(tensor),
                "dtype": tensor.tensor_type.name,
            }
            for tensor in kept
        ],
        "bytes": dict(kinds),
        "total_bytes": sum(kinds.values()),
        "parameters": sum(int(tensor.n_elements) for tensor in reader.tensors),
        "quantized_parameters": weights,
        "findings": [asdict(finding) for tensor in reader.tensors for finding in _check(tensor)],
        "quantization": {"file_type": _field(reader, "general.file_type")},
        "recipe": None,
    }  # fmt: skip


def _field(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _shape(tensor: ReaderTensor) -> list[int]:
    """Rows first, as everywhere but in the file."""
    return [int(size) for size in reversed(tensor.shape)]


def _place(tensor: ReaderTensor) -> str:
    if tensor.name.startswith("blk."):
        return "block" if len(tensor.shape) > 1 else "vector"
    return _PLACES.get(tensor.name.removesuffix(".weight"), "other")


def _bits(kind: Type) -> int:
    """The bits of a code, which a type's name begins with: Q4_1, IQ2_XXS, MXFP4."""
    return int(next(letter for letter in kind.name if letter.isdigit()))


def _group(kind: Type) -> int:
    return _BLOCKS[kind][1] if kind in _BLOCKS else int(GGML_QUANT_SIZES[kind][0])


def _schemes(linears: list[ReaderTensor]) -> list[dict[str, Any]]:
    rows: dict[Type, dict[str, Any]] = {}
    for tensor in linears:
        kind = tensor.tensor_type
        row = rows.setdefault(kind, {
            "type": kind.name, "bits": _bits(kind), "codes_bits": _bits(kind), "group_size": _group(kind),
            "symmetric": _BLOCKS[kind][2] if kind in _BLOCKS else None, "linears": 0, "weights": 0,
        })  # fmt: skip
        row["linears"] += 1
        row["weights"] += int(tensor.n_elements)
    return sorted(rows.values(), key=lambda row: -row["weights"])


def _check(tensor: ReaderTensor) -> Iterator[Finding]:
    """Scales that are not finite or all zero. Single zero or negative scales are sound in these formats."""
    name, kind = tensor.name.removesuffix(".weight"), tensor.tensor_type
    if kind in _BLOCKS:
        blocks = tensor.data.reshape(-1, GGML_QUANT_SIZES[kind][1])
        for what, offset in zip(("scales", "offsets"), _BLOCKS[kind][0], strict=False):
            values = blocks[:, offset : offset + 2].copy().view(np.float16)
            broken = int((~np.isfinite(values)).sum())
            if broken:
                yield Finding(name, f"{what} are not finite", broken, len(values))
            if what == "scales" and not values.any():
                yield Finding(name, "scales are all zero", len(values), len(values))
    elif len(tensor.shape) == 1 and kind in (Type.F32, Type.F16):
        broken = int((~np.isfinite(tensor.data)).sum())
        if broken:
            yield Finding(tensor.name, "values are not finite", broken, int(tensor.n_elements))
