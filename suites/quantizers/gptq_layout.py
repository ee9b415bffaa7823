"""Reading the GPTQ layout, which this project does not write: eight 4-bit codes along the input in each int32."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from awqbench.formats.shards import Shards


def is_gptq(checkpoint: Path) -> bool:
    """Whether config.json says so."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return str(config["quantization_config"]["quant_method"]) == "gptq"


def dense_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Float32 weights [out, in] of the quantized linears, by module name; 2, 4 and 8 bits."""
    shards = Shards(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    bits, weights = int(config["bits"]), {}
    # The first version of the layout stores zero points less one, subtracted from whole words: a zero point of 0
    # borrows from its neighbour, which only adding to whole words undoes.
    ones = sum(1 << shift for shift in range(0, 32, bits)) if config.get("checkpoint_format") == "gptq" else 0
    for name in (entry.removesuffix(".qweight") for entry in shards.entries if entry.endswith(".qweight")):
        codes = _unpack(shards.tensor(f"{name}.qweight").T, bits)
        zeros = _unpack(shards.tensor(f"{name}.qzeros") + ones, bits).T
        scales = shards.tensor(f"{name}.scales").float().T
        group = shards.tensor(f"{name}.g_idx").long()
        weights[name] = (codes - zeros[:, group]).float() * scales[:, group]
    return weights


def _unpack(words: Tensor, bits: int) -> Tensor:
    """int32 [rows, words] -> int32 [rows, words * 32 / bits], lowest bits first."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    codes: Tensor = (words.unsqueeze(-1) >> shifts) & (2**bits - 1)
    return codes.flatten(1)
