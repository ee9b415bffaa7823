"""transformers on a CPU, with whatever its environment has for the checkpoint's format; for interop.py."""

from __future__ import annotations

import torch
import transformers
from engine import answer, asked
from transformers import AutoModelForCausalLM

task = asked()
model = AutoModelForCausalLM.from_pretrained(task.checkpoint, dtype=getattr(torch, task.dtype), device_map="cpu").eval()
with torch.inference_mode():
    log_probs = model(torch.tensor([task.prompt])).logits[0, :-1].float().log_softmax(-1)
    best = log_probs.topk(task.top)
    start = torch.tensor([task.start])
    whole = model.generate(
        start,
        attention_mask=torch.ones_like(start),
        do_sample=False,
        max_new_tokens=task.continuation,
        min_new_tokens=task.continuation,
    )
top = [
    dict(zip(tokens.tolist(), values.tolist(), strict=True))
    for tokens, values in zip(best.indices, best.values, strict=True)
]
answer(task, transformers.__version__, top, whole[0, len(task.start) :].tolist())
