"""The specs awqbench ships: content of suites/presets, with the model filled in."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from awqbench.backends import registry
from awqbench.errors import UserError, unknown_choice
from awqbench.formats.config import read_config
from awqbench.formats.settings import QUANTIZATION, read_settings
from awqbench.resources import content
from awqbench.spec import RunSpec, parse_spec


def preset_text(name: str, model: str | None = None) -> str:
    """A preset's TOML, commented; with `model` its [model] source is replaced. Raises UserError for unknown names."""
    folder = content("suites") / "presets"
    names = [path.stem for path in sorted(folder.glob("*.toml"))]
    if name not in names:
        raise unknown_choice("preset", name, names)
    text = (folder / f"{name}.toml").read_text(encoding="utf-8")
    if model is None:
        return text
    # A JSON string is a TOML basic string, but for the two escapes that JSON makes of one rare character.
    source = json.dumps(model, ensure_ascii=False)
    return re.sub(r'(?m)^source = ".*"', lambda _: f"source = {source}", text, count=1)


def audit_spec(preset: str, checkpoint: Path, reference: str, engine: str | None = None) -> RunSpec:
    """A preset turned on one existing checkpoint: the reference and that checkpoint, nothing quantized.

    `engine` is a backend kind; by default `audit_engine` chooses. Raises UserError for a checkpoint that is not there,
    or an engine that runs no checkpoints.
    """
    if not checkpoint.exists():
        raise UserError(f"no checkpoint at {checkpoint} (allowed: a folder, or a GGUF file)")
    name = engine or audit_engine(checkpoint)
    if registry.kind(name).weights not in {"made", "folder", "gguf"}:
        raise UserError(f"{name} runs no existing checkpoint (allowed: {', '.join(_checkpoint_kinds())})")
    data: dict[str, Any] = tomllib.loads(preset_text(preset, reference))
    data["backends"] = {
        "reference": {"kind": "reference"},
        # Whatever runs it, it is what is judged: rtn would be a control by itself.
        "checkpoint": {"kind": name, "role": "candidate", "checkpoint": str(checkpoint.resolve())},
    }
    return parse_spec(data, f"preset {preset}")


def audit_engine(checkpoint: Path) -> str:
    """The backend kind that runs a checkpoint: ours where it reads it, llama.cpp for a GGUF file, else transformers.

    Raises UserError for a file that is no GGUF, and for a folder that is no checkpoint.
    """
    if checkpoint.is_file():
        with checkpoint.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise UserError(f"{checkpoint} is no GGUF file (allowed: a checkpoint's folder, or a GGUF file)")
        return "llamacpp"
    try:
        config = read_config(checkpoint, to_multiply=True)
    except UserError as unread:
        method = (read_settings(checkpoint).get(QUANTIZATION) or {}).get("quant_method")
        if method is None:
            raise unread
        return "gptqmodel" if method == "gptq" else "transformers"
    return "gptq" if config[QUANTIZATION]["quant_method"] == "gptq" else "awq"


def _checkpoint_kinds() -> list[str]:
    return [name for name, kind in registry.kinds().items() if kind.weights in {"made", "folder", "gguf"}]
