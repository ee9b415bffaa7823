"""This project's quantizer, in float32, on given calibration windows."""

from __future__ import annotations

from pathlib import Path

import torch
from peer import task

from awqbench.quantization.calibrate import Windows
from awqbench.quantization.pipeline import quantize_model
from awqbench.quantization.recipe import Recipe

asked = task("awq", "awq-module", "gptq", "awq+gptq", "awq+gptq-module", "rtn")
method, _, search = asked.method.partition("-")
ids = torch.tensor(asked.windows, dtype=torch.int64)
quantize_model(
    Path(asked.model),
    Path(asked.out),
    Recipe(
        method=method,  # type: ignore[arg-type]
        bits=asked.bits,
        group_size=asked.group_size,
        symmetric=asked.symmetric,
        search=search or "gram",  # type: ignore[arg-type]
    ),
    windows=None if method == "rtn" else Windows(ids, len(ids)),
    layout="compressed-tensors" if asked.symmetric else "autoawq",
)
