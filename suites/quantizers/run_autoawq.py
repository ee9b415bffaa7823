"""AutoAWQ 0.2.9 with the one mend without which it destroys a model on a CPU."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

import torch
from awq import AutoAWQForCausalLM
from awq.quantize.quantizer import AwqQuantizer
from peer import task


class Mended(AwqQuantizer):  # type: ignore[misc]
    """Keeps real copies of the weights that the search overwrites.

    It takes them with `.cpu()`, which on a CPU is the very tensor it then scales in place. Clipping looks at 64 tokens
    rather than 512: the default materializes tokens x weights of a layer, which takes minutes for each on a CPU.
    """

    _compute_best_clip = partialmethod(AwqQuantizer._compute_best_clip, n_sample_token=64)

    def _compute_best_scale(self, x: Any, w_mean: Any, x_mean: Any, inspected: Any, *rest: Any) -> Any:
        original = inspected.state_dict
        inspected.state_dict = lambda: {name: tensor.clone() for name, tensor in original().items()}
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, inspected, *rest)
        finally:
            del inspected.state_dict


asked = task("awq")
model = AutoAWQForCausalLM.from_pretrained(asked.model, torch_dtype=torch.float32, device_map="cpu")
model.quantize(
    tokenizer=None,
    quant_config={
        "zero_point": not asked.symmetric,
        "q_group_size": asked.group_size,
        "w_bit": asked.bits,
        "version": "GEMM",
    },
    calib_data=asked.windows,
    max_calib_samples=len(asked.windows),
    max_calib_seq_len=len(asked.windows[0]),
    quantizer_cls=Mended,
)
model.save_quantized(asked.out)
