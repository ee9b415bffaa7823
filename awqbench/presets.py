"""The specs awqbench ships: content of suites/presets, with the model filled in."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from awqbench.errors import UserError, unknown_choice
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
    # A JSON string is a TOML basic string.
    return re.sub(r'(?m)^source = ".*"', lambda _: f"source = {json.dumps(model)}", text, count=1)


def audit_spec(preset: str, checkpoint: Path, reference: str) -> RunSpec:
    """A preset turned on one existing checkpoint: the reference and that checkpoint, nothing quantized."""
    if not checkpoint.is_dir():
        raise UserError(f"no checkpoint folder at {checkpoint}")
    data: dict[str, Any] = tomllib.loads(preset_text(preset, reference))
    data["backends"] = {
        "reference": {"kind": "reference"},
        "checkpoint": {"kind": "awq", "checkpoint": str(checkpoint.resolve())},
    }
    return parse_spec(data, f"preset {preset}")
