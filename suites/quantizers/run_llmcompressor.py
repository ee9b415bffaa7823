"""llm-compressor's AWQModifier, in fp32 on a CPU, on given calibration windows."""

from __future__ import annotations

import torch
from compressed_tensors.quantization import preset_name_to_scheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from peer import task
from transformers import AutoModelForCausalLM

asked = task("awq", "gptq", "rtn")
if not torch.accelerator.is_available():
    # It pins its cache whatever the device, which a CPU-only torch refuses to do.
    torch.Tensor.pin_memory = lambda self, *args: self  # type: ignore[method-assign,assignment]

scheme = preset_name_to_scheme("W4A16" if asked.symmetric else "W4A16_ASYM", ["Linear"])
assert scheme.weights is not None
scheme.weights.num_bits = asked.bits
scheme.weights.group_size = asked.group_size
groups = {"config_groups": {"group_0": scheme}, "ignore": ["lm_head"]}
recipe = {
    "awq": lambda: [AWQModifier(), QuantizationModifier(**groups)],
    "gptq": lambda: [GPTQModifier(**groups)],
    "rtn": lambda: [QuantizationModifier(**groups)],
}[asked.method]()

model = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32)
length = len(asked.windows[0])
data = Dataset.from_dict({"input_ids": asked.windows, "attention_mask": [[1] * length for _ in asked.windows]})
oneshot(
    model=model,
    dataset=data,
    recipe=recipe,
    max_seq_length=length,
    num_calibration_samples=len(asked.windows),
    shuffle_calibration_samples=False,
)
model.save_pretrained(asked.out, save_compressed=True)
