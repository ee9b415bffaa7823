"""The unquantized model in transformers: what every difference is taken against."""

from __future__ import annotations

from typing import Any

import torch

from awqbench.backends.pretrained import load_pretrained
from awqbench.backends.torch_engine import TorchEngine


class ReferenceBackend(TorchEngine):
    """float32, bfloat16 or float16, as the options say."""

    def build(self, options: dict[str, Any], dtype: torch.dtype) -> Any:
        """Load `weights` with transformers."""
        return load_pretrained(options, dtype).to(self.device)
