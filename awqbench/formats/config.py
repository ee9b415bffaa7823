"""config.json of a quantized checkpoint: complete for every reader, older transformers included."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awqbench.errors import UserError
from awqbench.formats.layouts import READABLE, Readable, Scheme, readable
from awqbench.formats.settings import CONFIG, QUANTIZATION, read_settings
from awqbench.ops.linear import ORDERED

if TYPE_CHECKING:  # planning reads this file, and transformers' models take seconds to import
    from transformers import PretrainedConfig, PreTrainedModel


# transformers 4 scales the angles of their full attention alone by what stands at top level, and 5 reads it so too.
_SCALE_FULL = ("gemma3_text", "olmo3")


def export_config(model: PreTrainedModel, *, dtype: str, quantization: Mapping[str, Any]) -> dict[str, Any]:
    """The model's configuration as JSON data, with `quantization` (see `Layout.config`) as its quantization_config."""
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False), object_hook=_plain_float)
    config.pop("_name_or_path", None)
    for part in (config, config.get("text_config") or {}):
        part |= _rope_for_transformers_4(part)
    config["architectures"] = [type(model).__name__]
    config["dtype"] = dtype
    config[QUANTIZATION] = dict(quantization)
    return config


def _plain_float(found: dict[str, Any]) -> Any:
    """transformers 5 writes infinity as {"__float__": "Infinity"}, which 4 takes for a table; both read the number."""
    if found.keys() == {"__float__"} and found["__float__"] in ("Infinity", "-Infinity", "NaN"):
        return float(found["__float__"])
    return found


def _rope_for_transformers_4(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 5 keeps rotary parameters in `rope_parameters`; 4 reads them at top level, else assumes 10000."""
    rope = config.get("rope_parameters") or {}
    extra: dict[str, Any] = {}
    if layered := isinstance(rope.get("full_attention"), dict):  # a table per kind of layer, as in Gemma 3
        if "rope_theta" in (rope.get("sliding_attention") or {}):
            extra["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    # Of other models with tables 5 would take what stands at top level for that of every kind of layer.
    if rope.get("rope_type", "default") != "default" and (not layered or config.get("model_type") in _SCALE_FULL):
        extra["rope_scaling"] = rope
    for key in ("rope_theta", *(() if layered else ("partial_rotary_factor",))):
        if rope.get(key) is not None:
            extra[key] = rope[key]
    if config.get("model_type") == "gpt_neox":
        names = {"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"}
        extra |= {old: extra[new] for old, new in names.items() if new in extra}
    return extra


def read_config(checkpoint: Path, *, to_multiply: bool = False) -> dict[str, Any]:
    """`read_settings` of a checkpoint whose quantization is read here.

    to_multiply: its packed weights must also be such as this project's kernels multiply. Raises UserError as
    `read_settings` does, and one that says what the checkpoint is when it's none of ours.
    """
    config = read_settings(checkpoint)
    try:
        read_schemes(config, ())
        if to_multiply and config[QUANTIZATION].get("desc_act"):
            raise UserError(ORDERED)
    except UserError as error:
        raise UserError(f"{Path(checkpoint) / CONFIG}: {error}") from None
    return config


def layout_of(config: Mapping[str, Any]) -> Readable:
    """The layout that a config.json names. Raises UserError for other quantization methods."""
    found = config.get(QUANTIZATION)
    if not isinstance(found, Mapping) or not found:
        allowed = ", ".join(dict.fromkeys(layout.method for layout in READABLE))
        raise UserError(f"it has no quantization_config (allowed quantization methods: {allowed})")
    return readable(found)


def read_schemes(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scheme]:
    """What a config.json says of the quantized linears named; errors as `layout_of` and `Readable.schemes`."""
    return layout_of(config).schemes(config[QUANTIZATION], names)


def model_config(checkpoint: Path, trust_remote_code: bool) -> PretrainedConfig:
    """The checkpoint's configuration as transformers has it, as if the model were not quantized."""
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(checkpoint, trust_remote_code=trust_remote_code)
    except (ValueError, OSError) as error:
        raise UserError(f"{checkpoint / CONFIG}: {str(error).splitlines()[0]}") from None
    if hasattr(config, QUANTIZATION):
        del config.quantization_config
    return config
