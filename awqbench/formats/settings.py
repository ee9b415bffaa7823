"""Where a folder says how it is quantized: in config.json, or as tools did until 2023 in a file of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awqbench.errors import UserError

CONFIG = "config.json"
QUANTIZATION = "quantization_config"
OLD_FILES = {"quant_config.json": "awq", "quantize_config.json": "gptq"}  # of AutoAWQ and of AutoGPTQ


def read_settings(folder: Path) -> dict[str, Any]:
    """config.json's data; what an older tool wrote beside it stands where newer ones have it.

    Raises UserError when the file is missing or broken.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(f"no checkpoint: {path} is missing")
    config = read_json(path)
    for name, method in OLD_FILES.items():
        if not config.get(QUANTIZATION) and (old := path.with_name(name)).is_file():
            config[QUANTIZATION] = {"quant_method": method, **read_json(old)}
    return config


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object. Raises UserError for one that doesn't."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object")
    return found


def expression(text: str) -> re.Pattern[str]:
    """A regular expression out of a quantization_config. Raises UserError for one that is none."""
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"{text!r} in its quantization_config is no regular expression: {error}") from None


def positions(config: Any) -> int:
    """Tokens that a model with this transformers configuration, of its text, is taken to hold at once."""
    return int(getattr(config, "max_position_embeddings", 0) or 2048)


def context_length(config: Mapping[str, Any]) -> int | None:
    """Tokens that a config.json's model holds at once, the text model where there are several; None: it isn't said."""
    text = config.get("text_config") or config
    found = text.get("max_position_embeddings") or text.get("n_positions")  # GPT-2, GPT-J
    return found if isinstance(found, int) else None
