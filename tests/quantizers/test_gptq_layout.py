"""The GPTQ layout's two versions are read back to the weights that were packed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor


def _pack(values: Tensor, bits: int) -> Tensor:
    """Integers [rows, columns] -> int32 [rows, columns * bits / 32], lowest bits first, by Python's integers."""
    per_word = 32 // bits
    words = []
    for row in values.tolist():
        chunks = [row[start : start + per_word] for start in range(0, len(row), per_word)]
        words.append([sum(value << (bits * place) for place, value in enumerate(chunk)) for chunk in chunks])
    return _int32(words)


def _int32(words: list[list[int]]) -> Tensor:
    return torch.tensor([[word - 2**32 if word >= 2**31 else word for word in row] for row in words], dtype=torch.int32)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_read_back(script: Callable[[str], ModuleType], tmp_path: Path, bits: int, version: str) -> None:
    generator = torch.Generator().manual_seed(bits)
    out, inputs, groups = 32, 64, 4
    codes = torch.randint(0, 2**bits, (out, inputs), generator=generator)
    zeros = torch.randint(0, 2**bits, (groups, out), generator=generator)
    zeros[:, ::5] = 0  # where the first version borrows from the neighbour
    scales = torch.rand(groups, out, generator=generator).half()
    order = torch.randperm(inputs, generator=generator) % groups
    packed = _pack(zeros, bits)
    if version == "gptq":
        ones = sum(1 << place for place in range(0, 32, bits))
        packed = _int32([[(word - ones) % 2**32 for word in row] for row in packed.tolist()])
    save_file(
        {
            "a.qweight": _pack(codes, bits).T.contiguous(),
            "a.qzeros": packed,
            "a.scales": scales,
            "a.g_idx": order.to(torch.int32),
        },
        tmp_path / "model.safetensors",
    )
    config = {"quantization_config": {"quant_method": "gptq", "bits": bits, "checkpoint_format": version}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    reader = script("gptq_layout")
    assert reader.is_gptq(tmp_path)
    wanted = (codes - zeros.T[:, order]).float() * scales.float().T[:, order]
    torch.testing.assert_close(reader.dense_weights(tmp_path)["a"], wanted, rtol=0, atol=0)
