"""Whatever transformers loads by itself: another type of number, or a checkpoint that says how it is quantized."""

from __future__ import annotations

from typing import Any

import torch

from awqbench.backends.linears import count_linears
from awqbench.backends.pretrained import load_pretrained
from awqbench.backends.torch_engine import TorchEngine
from awqbench.backends.transformers_config import quantization_of
from awqbench.errors import BackendUnavailable, first_line

# Where the packages are that transformers needs for a method's checkpoints.
_ENVIRONMENTS = {
    "awq": "awqbench env create gptqmodel, and kind gptqmodel",
    "gptq": "awqbench env create gptqmodel, and kind gptqmodel",
    "bitsandbytes": "awqbench env create bitsandbytes, and that interpreter as `python`",
    "torchao": "awqbench env create torchao, and that interpreter as `python`",
    "compressed-tensors": "pip install compressed-tensors",
}


class TransformersBackend(TorchEngine):
    """A Hugging Face folder as transformers reads it."""

    def build(self, options: dict[str, Any], dtype: torch.dtype) -> Any:
        """Load `weights`. Raises BackendUnavailable where transformers lacks the package for its quantization."""
        method = quantization_of(options["weights"]).get("quant_method")
        try:
            # Packed weights may not be moved once they are loaded.
            model = load_pretrained(options, dtype, **({"device_map": {"": self.device}} if method else {}))
        except ImportError as error:
            hint = _ENVIRONMENTS.get(str(method), "install what it names")
            raise BackendUnavailable(
                f"transformers cannot load {options['weights']} ({method}): {first_line(error)}: {hint}"
            ) from error
        return model if method else model.to(self.device)

    def kernel(self) -> str:
        """The classes of the linears, counted."""
        return count_linears(self.model)
