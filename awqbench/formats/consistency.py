"""Does a checkpoint's config.json tell the truth about its tensors? Names and shapes alone are compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from awqbench.errors import UserError
from awqbench.formats.health import Finding
from awqbench.formats.layouts import Scheme, readable
from awqbench.formats.settings import expression
from awqbench.formats.shards import Entry
from awqbench.formats.stored import ROLES, StoredLinear

_BLOCK = re.compile(r"\.(\d+)\.")
_TOWER = re.compile(r"vision|visual|audio|image|speech")
# Families whose attention has the plain sizes that config.json's head counts give.
_PLAIN = {"llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe"}


def check_config(
    config: Mapping[str, Any],
    entries: Mapping[str, Entry],
    linears: Iterable[StoredLinear],
    unquantized: Mapping[str, tuple[int, ...]],
) -> list[Finding]:
    """Findings about a folder. `unquantized` maps linears that are not quantized, by name, to their shapes."""
    quantized, asked, listed = list(linears), _asked(config), _Listed.of(config)
    found = [Finding(linear.name, what, 1, 1) for linear in quantized for what in _incomplete(asked, entries, linear)]
    found += [Finding("", f"config.json: {what}", 1, 1) for what in listed.broken]
    found += _contradictions(config, quantized)
    shapes = {linear.name: linear.shape for linear in quantized} | dict(unquantized)
    found += [Finding(name, what, 1, 1) for name, what in _sizes(config, shapes)]
    found += _layers(config, entries)
    if quantized:
        kept = [name for name in unquantized if _BLOCK.search(f"{name}.") and name not in listed]
        what = "not quantized, and config.json does not say so"
        found += [Finding(name, what, 1, 1) for name in kept]
        found += [
            Finding(linear.name, "quantized, and config.json says it is not", 1, 1)
            for linear in quantized
            if linear.name in listed
        ]
    return found


def _asked(config: Mapping[str, Any]) -> set[str]:
    """The roles of tensors that compressed-tensors linears have only with some settings, and have with these."""
    groups = (config.get("quantization_config") or {}).get("config_groups") or {}
    weights = [group.get("weights") or {} for group in groups.values() if isinstance(group, Mapping)]
    asked = set()
    if any(str(each.get("actorder")).lower() in ("group", "dynamic", "true") for each in weights):
        asked.add("order")
    if weights and not any(each.get("symmetric", True) for each in weights):
        asked.add("zeros")
    return asked


def _incomplete(asked: set[str], entries: Mapping[str, Entry], linear: StoredLinear) -> list[str]:
    """Tensors of a linear that are missing or have a shape that its others contradict."""
    suffixes = ROLES[linear.layout]
    required = {"scales", "shape", *asked} if linear.layout == "compressed-tensors" else {"scales", "zeros"}
    if linear.layout.startswith("gptq"):
        required.add("order")
    found = [f"{suffixes[role]} is missing" for role in sorted(required - linear.tensors.keys())]
    (out, inputs), groups = linear.shape, linear.groups
    packed = -(-out * linear.bits // 32)
    wanted = (
        {"scales": (out, groups), "zeros": (packed, groups), "codes": (out, -(-inputs * linear.bits // 32))}
        if linear.layout == "compressed-tensors"
        else {"scales": (groups, out), "zeros": (groups, packed)}
    )
    for role, shape in wanted.items():
        name = linear.tensors.get(role)
        if name and entries[name].dtype != "I8" and entries[name].shape != shape:
            found.append(f"{suffixes[role]} is {list(entries[name].shape)}, the others want {list(shape)}")
    if groups and inputs % groups:
        found.append(f"{groups} groups do not divide {inputs} inputs")
    return found


def _contradictions(config: Mapping[str, Any], linears: list[StoredLinear]) -> list[Finding]:
    """Bits and group sizes that config.json tells and the tensors don't have."""
    try:
        said = _declared(config, linears)
    except UserError as error:
        return [Finding("", f"config.json: {error}", 1, 1)] if linears else []
    found = []
    for linear in linears:
        scheme = said[linear.name]
        if scheme.bits != linear.bits:
            found.append(Finding(linear.name, f"config.json says {scheme.bits} bits, tensors hold {linear.bits}", 1, 1))
        if linear.groups and scheme.groups(linear.shape[1]) != linear.groups:
            size = linear.shape[1] // linear.groups
            what = f"config.json says groups of {scheme.group_size}, tensors have groups of {size}"
            found.append(Finding(linear.name, what, 1, 1))
    return found


def _declared(config: Mapping[str, Any], linears: list[StoredLinear]) -> Mapping[str, Scheme]:
    said = config.get("quantization_config") or {}
    names = [linear.name for linear in linears]
    if not said.get("quant_method"):
        raise UserError("its quantization_config names no method, yet there are quantized linears")
    return readable(said).schemes(said, names)


def _sizes(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str]]:
    """Linears whose inputs or outputs are not what config.json says of the model."""
    text = config.get("text_config") or config
    hidden, heads = text.get("hidden_size"), text.get("num_attention_heads")
    # Families have names of their own for the sizes of dense layers (Llama 4), experts and shared experts.
    wide = {size for key, value in text.items() if "intermediate_size" in key for size in _numbers(value)}
    shared = {count for key, value in text.items() if "shared_experts" in key for count in _numbers(value)}
    wide |= {count * size for count in shared for size in wide}
    if not isinstance(hidden, int) or not wide:
        return []
    rows: dict[str, set[int]] = {"gate_proj": wide, "up_proj": wide, "down_proj": {hidden}, "o_proj": {hidden}}
    columns = {leaf: {hidden} for leaf in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")} | {"down_proj": wide}
    if config.get("model_type") in _PLAIN and isinstance(heads, int):
        head = text.get("head_dim") or hidden // heads
        values = {(text.get("num_key_value_heads") or heads) * head}
        rows |= {"q_proj": {heads * head}, "k_proj": values, "v_proj": values}
        columns["o_proj"] = {heads * head}
    found = []
    for name, shape in shapes.items():
        leaf = name.rpartition(".")[2]
        if len(shape) != 2 or _TOWER.search(name):
            continue
        for what, size, allowed in (("outputs", shape[0], rows.get(leaf)), ("inputs", shape[1], columns.get(leaf))):
            if allowed and size not in allowed:
                wanted = " or ".join(map(str, sorted(allowed)))
                found.append((name, f"it has {size} {what}, config.json wants {wanted}"))
    return found


def _numbers(value: object) -> list[int]:
    """One size, or a list of one for each layer."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, int)]


def _layers(config: Mapping[str, Any], entries: Mapping[str, Entry]) -> list[Finding]:
    wanted = (config.get("text_config") or config).get("num_hidden_layers")
    present = {
        int(match[1]) for name in entries if not _TOWER.search(name) and (match := _BLOCK.search(name)) is not None
    }
    if not isinstance(wanted, int) or not present:
        return []
    missing = sorted(set(range(wanted)) - present)
    return [Finding("", f"layers without tensors, first {missing[0]}", len(missing), wanted)] if missing else []


@dataclass(frozen=True, slots=True)
class _Listed:
    """The linears that config.json lists, in the way of its method, as not quantized."""

    names: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]
    parts: tuple[str, ...]
    broken: tuple[str, ...]  # what is wrong with expressions that are none

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> _Listed:
        said = config.get("quantization_config") or {}
        names = [str(each) for each in said.get("ignore") or ()]
        patterns, broken = [], []
        for name in names:
            if name.startswith("re:"):
                try:
                    patterns.append(expression(name.removeprefix("re:")))
                except UserError as error:
                    broken.append(str(error))
        parts = tuple(map(str, said.get("modules_to_not_convert") or ()))
        return cls(frozenset(names), tuple(patterns), parts, tuple(broken))

    def __contains__(self, name: str) -> bool:
        return (
            name in self.names
            or any(pattern.match(name) for pattern in self.patterns)
            or any(part in name for part in self.parts)
        )
