"""The check against the model itself: transformers in float32, in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from awqbench.backends.base import FloatArray
from awqbench.conformance.subject import Subject
from awqbench.conformance.verdict import NotOffered, within
from awqbench.worker.client import Worker

# As [parity] has it by default.
MAX_KL = 0.01
MAX_ERROR = 0.05


def the_models_own_weights_say_the_same(subject: Subject) -> str:
    """On the model's own unquantized weights, it says what transformers says in float32."""
    if subject.unquantized is None:
        raise NotOffered("it does not run the model's own weights")
    ids = subject.passage
    reference = _transformers(subject.folder, ids)
    with subject.unquantized() as worker:
        if worker.offers("logprobs"):
            table = np.concatenate(list(worker.logprobs(ids, 1, "prefill"))).astype(np.float64)
            kl = float((np.exp(reference) * (reference - table)).sum(axis=1).mean())
            return within("mean divergence", abs(kl), MAX_KL, "nats a token")
        return _own_tokens(worker, ids, reference)


def _own_tokens(worker: Worker, ids: list[int], reference: FloatArray) -> str:
    own = reference[np.arange(len(reference)), ids[1:]]
    if worker.offers("score"):
        error = float(np.abs(worker.score([ids], [1])[0].logprobs - own).mean())
        return within("mean error of the text's own tokens", error, MAX_ERROR)
    if not worker.offers("topk-logprobs"):
        raise NotOffered("no log-probabilities to compare")
    found = list(worker.topk_logprobs(ids, 1, min(5, int(worker.description["topk"]))))
    places, values = np.concatenate([t.ids for t in found]), np.concatenate([t.logprobs for t in found])
    error = float(np.abs(np.take_along_axis(reference, places, axis=1) - values).mean())
    return within("mean error of its top tokens", error, MAX_ERROR)


def _transformers(folder: Path, ids: list[int]) -> FloatArray:
    """log p(. | ids[:t]) for t = 1 .. n-1, float64 [n - 1, vocabulary]."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    table: FloatArray = torch.log_softmax(logits, -1).numpy()
    return table
