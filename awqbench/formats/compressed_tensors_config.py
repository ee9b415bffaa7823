"""The quantization_config of a compressed-tensors checkpoint: which linear has which scheme."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from awqbench.errors import UserError
from awqbench.formats.scheme import PER_CHANNEL, Scheme
from awqbench.formats.settings import expression

FORMAT = "pack-quantized"
_REGEX = "re:"
_ALL = "Linear"


def config(schemes: Mapping[str, Scheme], not_converted: Sequence[str]) -> dict[str, Any]:
    """One config group for each scheme, the commonest first.

    A single group targets all linears. Several name theirs, by patterns over the layers where these are exact: readers
    that fuse linears (vLLM) would take a group that targets all linears for any of them.
    """
    found = sorted(set(schemes.values()))
    count = {scheme: sum(other == scheme for other in schemes.values()) for scheme in found}
    groups = {}
    for index, scheme in enumerate(sorted(found, key=lambda scheme: -count[scheme])):
        targets = [_ALL] if len(found) == 1 else _targets(schemes, scheme)
        groups[f"group_{index}"] = {"targets": targets, "format": FORMAT, "weights": _weights(scheme)}
    config: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": list(not_converted),
    }
    if len(found) == 1 and not found[0].symmetric:
        # For transformers alone, which decompresses before the first forward anyway: without it, 5.23 makes room for
        # unpacked zero points and then refuses packed ones. With several groups it would decompress all by one scheme.
        config["dequantize"] = True
    return config


def schemes(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scheme]:
    """The scheme of each linear named, by the package's order of precedence: name, pattern, class.

    Raises UserError for anything but integer weights in the pack-quantized format, and for a name that no group of
    several targets.
    """
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise UserError("its quantization_config has no config_groups")
    _refuse_extras(config)
    parsed = {name: _scheme(name, group, str(config.get("format"))) for name, group in groups.items()}
    if len(set(parsed.values())) == 1:
        return dict.fromkeys(names, next(iter(parsed.values())))
    targets = {target: parsed[group] for group, value in groups.items() for target in value.get("targets", ())}
    return {name: _match(name, targets) for name in names}


def _match(name: str, targets: Mapping[str, Scheme]) -> Scheme:
    if name in targets:
        return targets[name]
    for target in sorted(targets):
        if target.startswith(_REGEX) and expression(target.removeprefix(_REGEX)).match(name):
            return targets[target]
    if _ALL in targets:
        return targets[_ALL]
    raise UserError(f"none of its config_groups targets {name}")


def _targets(schemes: Mapping[str, Scheme], scheme: Scheme) -> list[str]:
    """Names of the linears with this scheme; one pattern for all that differ in layer or expert numbers alone, if every
    such linear has it."""
    shapes: dict[str, dict[str, Scheme]] = {}
    for name, own in schemes.items():
        shapes.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "#", name), {})[name] = own
    targets: list[str] = []
    for shape, members in shapes.items():
        if len(members) > 1 and set(members.values()) == {scheme}:
            pattern = r"\d+".join(re.escape(part) for part in shape.split("#"))
            targets.append(f"{_REGEX}^{pattern}$")
        else:
            targets += [name for name, own in members.items() if own == scheme]
    return targets


def _weights(scheme: Scheme) -> dict[str, Any]:
    channel = scheme.group_size == PER_CHANNEL
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "channel" if channel else "group",
        "group_size": None if channel else scheme.group_size,
        "dynamic": False,
    }


def _refuse_extras(config: Mapping[str, Any]) -> None:
    if config.get("kv_cache_scheme"):
        raise UserError("it quantizes the key-value cache too, which is not read here (allowed: weights alone)")
    if (config.get("transform_config") or {}).get("config_groups"):
        raise UserError("it transforms activations (transform_config), which is not read here (allowed: no transforms)")
    sparsity = (config.get("sparsity_config") or {}).get("format", "dense")
    if sparsity != "dense":
        raise UserError(f"its weights are sparse ({sparsity}), which is not read here (allowed: dense)")


def _scheme(name: str, group: Any, whole: str) -> Scheme:
    """Check one config group of a file in the format `whole`."""
    if not isinstance(group, Mapping) or not isinstance(weights := group.get("weights"), Mapping):
        raise UserError(f"its config group {name} describes no weights")
    if (kind := group.get("format") or whole) != FORMAT:
        raise UserError(f"its format is compressed-tensors {kind} (allowed: {FORMAT})")
    for activations in ("input_activations", "output_activations"):
        if group.get(activations):
            raise UserError(f"it quantizes activations too ({activations} of {name}; allowed: weights alone)")
    if str(weights.get("actorder")).lower() in ("group", "dynamic", "true"):
        raise UserError(
            "it has an activation order (actorder group), which is not read here (allowed: actorder weight)"
        )
    bits, size = weights.get("num_bits"), weights.get("group_size")
    strategy = weights.get("strategy") or {None: "tensor", PER_CHANNEL: "channel"}.get(size, "group")
    if weights.get("type", "int") != "int" or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise UserError(f"its weights are {weights.get('type')} of {bits} bits (allowed: int of 1 to 8 bits)")
    if strategy == "group" and isinstance(size, int) and size > 0:
        return Scheme(bits, size, bool(weights.get("symmetric", True)))
    if strategy == "channel":
        return Scheme(bits, PER_CHANNEL, bool(weights.get("symmetric", True)))
    raise UserError(f"its weights have strategy {strategy}, group size {size} (allowed: group with a size, channel)")
