"""GPTQModel's GPTQ and AWQ on a CPU, on given calibration windows."""

from __future__ import annotations

import os

# It asks for two threads of a pool whatever there is, and fails where the pool has one.
os.environ["GPTQMODEL_CPU_WORKERS"] = "2"

import torch
from gptqmodel import GPTQModel, QuantizeConfig
from peer import task

asked = task("gptq", "awq")
# Its AWQ refuses float32.
dtype = {"gptq": torch.float32, "awq": torch.float16}[asked.method]
config = QuantizeConfig(
    bits=asked.bits,
    group_size=asked.group_size,
    sym=asked.symmetric,
    method=asked.method,
    format={"gptq": "gptq", "awq": "gemm"}[asked.method],
    device="cpu",
)
model = GPTQModel.load(asked.model, config, dtype=dtype)
model.quantize([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in asked.windows], batch_size=1)
model.save(asked.out)
