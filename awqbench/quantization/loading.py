"""Load the model to quantize, or say in one line why it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from awqbench.errors import UserError
from awqbench.sources.models import check_causal_lm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def skeleton(folder: Path, trust_remote_code: bool) -> PreTrainedModel:
    """The model's structure without weights, on the meta device: enough to judge whether it can be quantized.

    Raises UserError for a folder that is missing, incomplete or holds no causal LM.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if check_causal_lm(folder, trust_remote_code).get("quantization_config"):
        raise UserError(f"{folder} is quantized already (allowed: a full-precision model)")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot build the model in {folder}: {_first_line(error)}") from error
    return model


def load(folder: Path, dtype: torch.dtype, device: str, trust_remote_code: bool) -> PreTrainedModel:
    """The model with its weights, ready for inference. Raises UserError naming a shard that is truncated or missing."""
    from transformers import AutoModelForCausalLM

    _check_shards(folder)
    try:
        model: PreTrainedModel
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot load the model in {folder}: {_first_line(error)}") from error
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise UserError(f"the model in {folder} lacks {len(names)} of its weights: {', '.join(names[:3])}")
    return model.to(torch.device(device)).eval().requires_grad_(False)


def _check_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
            if not (folder / name).is_file():
                raise UserError(f"{index} names the shard {name}, which is missing")
    for shard in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{shard} is truncated or no safetensors file: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
