"""A causal LM through transformers, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from awqbench.errors import UserError, first_line


def load_pretrained(options: Mapping[str, Any], dtype: torch.dtype, **more: Any) -> Any:
    """The model in the folder `options["weights"]`; `more` goes to `from_pretrained`.

    Raises UserError for a folder that transformers cannot read or that lacks weights; ImportError passes.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    folder = options["weights"]
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=options.get("trust_remote_code", False),
            output_loading_info=True,
            **more,
        )
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"cannot load the model in {folder}: {first_line(error)}") from error
    missing = sorted(loading["missing_keys"])
    if missing:  # transformers would fill them with random numbers and say so in a log
        raise UserError(f"the model in {folder} lacks {len(missing)} weights, first {missing[0]}")
    return model
