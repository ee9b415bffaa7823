"""What a Hugging Face folder's config.json says, read without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def quantization_of(folder: str) -> dict[str, Any]:
    """The `quantization_config`; empty where the folder is not quantized, or has no config."""
    return dict(_config(folder).get("quantization_config") or {})


def positions(folder: str) -> int | None:
    """`max_position_embeddings`, of the text model where there are several; None where it is not said."""
    config = _config(folder)
    found = config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    return int(found) if found else None


def _config(folder: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    return found
