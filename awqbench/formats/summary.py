"""What a checkpoint is: read from headers, and its scales and zero points one linear at a time. No model is built."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from awqbench.formats.consistency import check_config
from awqbench.formats.health import Checkup, Finding, check_health, check_vectors
from awqbench.formats.settings import read_json, read_settings
from awqbench.formats.shards import Entry, Shards
from awqbench.formats.stored import StoredLinear, found_layout, stored_linears

RECIPE = "quantize.json"
_BLOCK = re.compile(r"\.\d+\.")
DEGREES = (2, 4, 8)  # of tensor parallelism
_EMBEDDING = re.compile(r"(^|\.)(wte|wpe|embed_in|embedding)\.|embed_(tokens|positions)|word_embeddings|embd?\.")


def inspect_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint really is, as JSON data: an AutoAWQ, GPTQ, compressed-tensors, unquantized folder, or a GGUF.

    `format`, `quantized`; `bits`, `group_size`, `symmetric` of most weights; `schemes`: a row for each kind of
    quantized linear, with the bits that the layout holds, the bits that its codes use (in a sample), the group size (-1
    per channel), whether all zero points are in the middle, and how many linears and weights; `bits_per_weight`: all
    bytes of the quantized linears over their weights;
    `not_quantized`: linears and embeddings in full precision, by place; `bytes` on disk by kind; `parameters` (a tied
    matrix counts once); `findings`: what looks broken (see `health.Finding`); `recipe`: quantize.json; `quantization`:
    config.json's quantization_config. Memory does not grow with the checkpoint.

    Raises UserError for what is no checkpoint.
    """
    checkpoint = Path(checkpoint)
    if checkpoint.is_file() or (checkpoint.is_dir() and not (checkpoint / "config.json").is_file()):
        from awqbench.formats.gguf.read import gguf_file, inspect_gguf

        if (file := gguf_file(checkpoint)) is not None:
            return inspect_gguf(file)
    return _inspect_folder(checkpoint)


def _inspect_folder(checkpoint: Path) -> dict[str, Any]:
    config = read_settings(checkpoint)
    shards = Shards(checkpoint)
    layout = found_layout(config, shards.entries)
    said = config.get("quantization_config") or {}
    linears = stored_linears(shards, layout, _declared_bits(said)) if layout else []
    dense = _dense(shards.entries, linears)
    findings: list[Finding] = []
    checkups: dict[str, Checkup] = {}
    for linear in linears:
        checkups[linear.name] = check_health(shards, linear)
        findings += checkups[linear.name].findings
    matrices = [row for row in dense if row["place"] != "vector"]
    unquantized = {row["name"]: tuple(row["shape"]) for row in matrices if row["place"] == "block"}
    findings += check_config(config, shards.entries, linears, unquantized)
    findings += check_vectors(shards, [row["tensor"] for row in dense if row["place"] == "vector"])
    kinds = _bytes_by_kind(shards.entries, linears)
    weights = sum(linear.shape[0] * linear.shape[1] for linear in linears)
    schemes = _schemes(linears, checkups)
    packed = sum(kinds[kind] for kind in ("codes", "scales", "zeros", "other"))
    return {
        "format": layout or "safetensors",
        "quantized": bool(linears) or bool(said),
        "architecture": (config.get("architectures") or [None])[0],
        "model_type": config.get("model_type"),
        **{key: schemes[0][key] if schemes else None for key in ("bits", "group_size", "symmetric")},
        "effective_bits": max((row["codes_bits"] for row in schemes), default=None),
        "schemes": schemes,
        "bits_per_weight": round(8 * packed / weights, 4) if weights else None,
        "tensor_parallel": [degree for degree in DEGREES if linears and all(_splits(each, degree) for each in linears)],
        "linears": len(linears),
        "quantized_linears": {
            linear.name: {"shape": list(linear.shape), "bits": linear.bits, "group_size": linear.group_size}
            for linear in linears
        },
        "not_quantized": [{key: row[key] for key in ("name", "place", "shape", "dtype")} for row in matrices],
        "bytes": kinds,
        "total_bytes": sum(kinds.values()),
        "parameters": weights + sum(shards.entries[row["tensor"]].elements for row in dense),
        "quantized_parameters": weights,
        "findings": [asdict(finding) for finding in findings],
        "quantization": said,
        "recipe": read_recipe(checkpoint),
    }


def _splits(linear: StoredLinear, degree: int) -> bool:
    """Whether `degree` devices can share a linear by its outputs, in words of 8, or by its inputs, in whole groups.

    Which of the two an engine does depends on the linear's role, so both must work.
    """
    by_inputs = linear.groups <= 1 or linear.groups % degree == 0
    return by_inputs and linear.shape[0] % (8 * degree) == 0


def read_recipe(checkpoint: Path) -> dict[str, Any] | None:
    """quantize.json, or None for a checkpoint that another tool wrote."""
    path = Path(checkpoint) / RECIPE
    return read_json(path) if path.is_file() else None


def _declared_bits(said: Mapping[str, Any]) -> int:
    groups = said.get("config_groups") or {}
    weights = [group.get("weights") or {} for group in groups.values() if isinstance(group, Mapping)]
    bits = said.get("bits") or said.get("w_bit") or next((each.get("num_bits") for each in weights), None)
    return bits if isinstance(bits, int) else 4


def _schemes(linears: Iterable[StoredLinear], checkups: Mapping[str, Checkup]) -> list[dict[str, Any]]:
    """Linears of one kind together, the kind with most weights first."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for linear in linears:
        checkup = checkups[linear.name]
        key = (linear.bits, linear.group_size, checkup.symmetric)
        row = rows.setdefault(key, {
            "bits": linear.bits, "codes_bits": 0, "group_size": linear.group_size, "symmetric": checkup.symmetric,
            "linears": 0, "weights": 0,
        })  # fmt: skip
        row["codes_bits"] = max(row["codes_bits"], checkup.codes_bits)
        row["linears"] += 1
        row["weights"] += linear.shape[0] * linear.shape[1]
    return sorted(rows.values(), key=lambda row: -row["weights"])


def _dense(entries: Mapping[str, Entry], linears: Iterable[StoredLinear]) -> list[dict[str, Any]]:
    """The tensors of no quantized linear, each with the place it has in a model."""
    taken = {name for linear in linears for name in linear.tensors.values()}
    return [
        {
            "tensor": name, "name": name.removesuffix(".weight"), "place": _place(name, entry),
            "shape": list(entry.shape), "dtype": entry.dtype,
        }
        for name, entry in entries.items()
        if name not in taken
    ]  # fmt: skip


def _place(name: str, entry: Entry) -> str:
    """vector | embedding | head | block (a linear of a transformer block) | other."""
    if len(entry.shape) < 2:
        return "vector"
    if _BLOCK.search(name):
        # convolutions and biases that are no linears have other names or more dimensions
        linear = name.endswith(".weight") and len(entry.shape) == 2
        return "block" if linear or ("experts" in name and len(entry.shape) == 3) else "other"
    if re.search(r"(^|\.)(lm_head|embed_out|output)\.", name):
        return "head"
    return "embedding" if _EMBEDDING.search(name) else "other"


def _bytes_by_kind(entries: Mapping[str, Entry], linears: Iterable[StoredLinear]) -> dict[str, int]:
    """Codes, scales, zero points, the rest of the quantized linears; matrices and vectors in full precision."""
    named = ("codes", "scales", "zeros")
    roles = {name: role for linear in linears for role, name in linear.tensors.items()}
    kinds = defaultdict(int, dict.fromkeys((*named, "other", "matrices", "vectors"), 0))
    for name, entry in entries.items():
        if name in roles:
            kinds[roles[name] if roles[name] in named else "other"] += entry.nbytes
        else:
            kinds["matrices" if len(entry.shape) > 1 else "vectors"] += entry.nbytes
    return dict(kinds)
