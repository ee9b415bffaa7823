"""The unquantized model in transformers: what every difference is taken against."""

from __future__ import annotations

from typing import Any

import torch

from awqbench.backends.torch_engine import TorchEngine
from awqbench.errors import UserError


class ReferenceBackend(TorchEngine):
    """float32, bfloat16 or float16, as the options say."""

    def build(self, options: dict[str, Any], dtype: torch.dtype) -> Any:
        """Load `weights` with transformers."""
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM

        try:
            model, loading = AutoModelForCausalLM.from_pretrained(
                options["weights"],
                dtype=dtype,
                trust_remote_code=options.get("trust_remote_code", False),
                output_loading_info=True,
            )
        except (SafetensorError, OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"cannot load the model in {options['weights']}: {first}") from error
        missing = sorted(loading["missing_keys"])
        if missing:  # transformers would fill them with random numbers and say so in a log
            raise UserError(f"the model in {options['weights']} lacks {len(missing)} weights, first {missing[0]}")
        return model.to(self.device)
