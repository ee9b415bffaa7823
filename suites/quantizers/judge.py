"""The one judge of every checkpoint: its weights, dequantized, in the dense float32 model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from awqbench.formats.load import read_quantized
from awqbench.formats.shards import Shards


@dataclass(frozen=True, slots=True)
class Quality:
    """On the test windows: perplexity, and the mean Kullback-Leibler divergence from the reference in nats a token."""

    perplexity: float
    kl: float


class Judge:
    """Holds the full-precision model, the test windows [windows, tokens] and its log-probabilities on them."""

    def __init__(self, model_dir: Path, windows: Tensor) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
        self.weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.windows = windows
        self.reference = [self._log_probs(window) for window in windows]

    def full_precision(self) -> Quality:
        """The reference's own quality."""
        return self._quality(self.reference)

    def judge(self, checkpoint: Path) -> Quality:
        """Dequantize a checkpoint, whoever wrote it, and measure it. Raises ValueError when it fits another model."""
        self.model.load_state_dict(self.weights | self._dense(checkpoint))
        return self._quality([self._log_probs(window) for window in self.windows])

    def _dense(self, checkpoint: Path) -> dict[str, Tensor]:
        quantized = {name: found.dequantize() for name, found in read_quantized(checkpoint).items()}
        shards = Shards(checkpoint)
        rest = {name: shards.tensor(name).float() for name in shards.entries if name in self.weights}
        dense = rest | {f"{name}.weight": weight for name, weight in quantized.items()}
        if foreign := sorted(dense.keys() - self.weights.keys()):
            raise ValueError(f"{checkpoint}: {foreign[0]} is no weight of the model")
        return dense

    @torch.inference_mode()
    def _log_probs(self, window: Tensor) -> Tensor:
        logits: Tensor = self.model(window.unsqueeze(0)).logits[0, :-1]
        return logits.float().log_softmax(-1)

    def _quality(self, log_probs: list[Tensor]) -> Quality:
        nll = kl = 0.0
        for window, found, reference in zip(self.windows, log_probs, self.reference, strict=True):
            nll -= found.gather(-1, window[1:, None]).double().sum().item()
            kl += (reference.exp() * (reference - found)).sum(-1).double().sum().item()
        count = self.windows.shape[0] * (self.windows.shape[1] - 1)
        return Quality(math.exp(nll / count), kl / count)
