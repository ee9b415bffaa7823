"""What a quantized checkpoint is, read from its headers: nothing is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from awqbench.errors import UserError
from awqbench.formats.autoawq import BITS, PER_WORD, SUFFIXES
from awqbench.formats.config import read_config
from awqbench.formats.shards import Entry, Shards

RECIPE = "quantize.json"


def inspect_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Architecture, bits, sizes and recipe of an AWQ checkpoint, as JSON data.

    `bits` is what the file layout holds, `effective_bits` what the codes use, `bits_per_weight` all bytes of the
    quantized linears (codes, zero points, scales) over their weights. `bytes` are payload bytes on disk by kind;
    `parameters` counts a tied matrix once. Raises UserError for a folder that is no such checkpoint.
    """
    checkpoint = Path(checkpoint)
    config = read_config(checkpoint)
    entries = Shards(checkpoint).entries
    recipe = read_recipe(checkpoint)
    quantization = config["quantization_config"]
    kinds = dict.fromkeys((*SUFFIXES, "matrices", "vectors"), 0)
    for name, entry in entries.items():
        kinds[_kind(name, entry)] += entry.nbytes
    linears = {
        name.removesuffix(".qweight"): [entry.shape[1] * PER_WORD, entry.shape[0]]
        for name, entry in entries.items()
        if name.endswith(".qweight")
    }
    weights = sum(out * inputs for out, inputs in linears.values())
    packed = sum(kinds[suffix] for suffix in SUFFIXES)
    return {
        "architecture": (config.get("architectures") or [None])[0],
        "model_type": config.get("model_type"),
        "bits": quantization.get("bits", BITS),
        "effective_bits": (recipe or {}).get("effective_bits", BITS),
        "bits_per_weight": round(8 * packed / weights, 4) if weights else None,
        "group_size": quantization.get("group_size"),
        "linears": len(linears),
        "shapes": linears,
        "not_converted": quantization.get("modules_to_not_convert") or [],
        "bytes": kinds,
        "total_bytes": sum(kinds.values()),
        "parameters": weights + sum(e.elements for n, e in entries.items() if _kind(n, e) in ("matrices", "vectors")),
        "quantized_parameters": weights,
        "recipe": recipe,
    }


def read_recipe(checkpoint: Path) -> dict[str, Any] | None:
    """quantize.json, or None for a checkpoint that another tool wrote."""
    path = Path(checkpoint) / RECIPE
    if not path.is_file():
        return None
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    return recipe if isinstance(recipe, dict) else None


def _kind(name: str, entry: Entry) -> str:
    suffix = name.rpartition(".")[2]
    if suffix in SUFFIXES:
        return suffix
    return "matrices" if len(entry.shape) > 1 else "vectors"
