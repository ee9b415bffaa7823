"""config.json of a quantized checkpoint: complete for every reader, older transformers included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from awqbench.errors import UserError
from awqbench.formats.autoawq import BITS

CONFIG = "config.json"


def export_config(
    model: PreTrainedModel, *, dtype: str, group_size: int, not_converted: Sequence[str]
) -> dict[str, Any]:
    """The model's configuration with its quantization_config, as JSON data."""
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)
    config |= _rope_for_transformers_4(config)
    config["architectures"] = [type(model).__name__]
    config["dtype"] = dtype
    config["quantization_config"] = {
        "quant_method": "awq",
        "version": "gemm",
        "bits": BITS,
        "group_size": group_size,
        "zero_point": True,
        "modules_to_not_convert": list(not_converted),
    }
    return config


def _rope_for_transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """transformers 5 keeps rotary parameters in `rope_parameters`; 4 reads them at top level, else assumes 10000."""
    rope = config.get("rope_parameters") or {}
    extra: dict[str, Any] = {}
    if isinstance(rope.get("full_attention"), dict):  # a table per kind of layer, as in Gemma 3
        if "rope_theta" in (rope.get("sliding_attention") or {}):
            extra["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    elif rope.get("rope_type", "default") != "default":
        extra["rope_scaling"] = rope
    for key in ("rope_theta", "partial_rotary_factor"):
        if rope.get(key) is not None:
            extra[key] = rope[key]
    if config.get("model_type") == "gpt_neox":
        names = {"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"}
        extra |= {old: extra[new] for old, new in names.items() if new in extra}
    return extra


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The parsed config.json of an AWQ checkpoint; raises UserError when it's missing, broken or not AWQ's."""
    path = Path(checkpoint) / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"no quantized checkpoint: {path} is missing") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    found = config.get("quantization_config") or {}
    method, version = found.get("quant_method"), str(found.get("version", "gemm")).lower()
    if method != "awq" or version != "gemm" or found.get("bits", BITS) != BITS or not found.get("zero_point", True):
        described = f"{method} version {version}, {found.get('bits')} bits, zero_point {found.get('zero_point', True)}"
        raise UserError(
            f"{path} does not describe an AutoAWQ GEMM checkpoint of {BITS} bits with zero points "
            f"({described if method else 'it has no quantization_config'})"
        )
    return config


def model_config(checkpoint: Path, trust_remote_code: bool) -> PretrainedConfig:
    """The checkpoint's configuration as transformers has it, as if the model were not quantized."""
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(checkpoint, trust_remote_code=trust_remote_code)
    except (ValueError, OSError) as error:
        raise UserError(f"{checkpoint / CONFIG}: {str(error).splitlines()[0]}") from None
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config
