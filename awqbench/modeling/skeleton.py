"""A model's modules without its weights: parameters on the meta device, buffers in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from awqbench.errors import UserError
from awqbench.sources.models import check_causal_lm


def skeleton(folder: Path, trust_remote_code: bool = False, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The structure of the full-precision causal LM in `folder`, in evaluation mode; `dtype` is its parameters'.

    Raises UserError for a folder that is missing, incomplete, holds no causal LM or one that is quantized already.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if check_causal_lm(folder, trust_remote_code).get("quantization_config"):
        raise UserError(f"{folder} is quantized already (allowed: a full-precision model)")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with parameters_on_meta():
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=dtype, trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError, KeyError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot build the model in {folder}: {line}") from error
    return model.eval().requires_grad_(False)


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Create modules with parameters on the meta device and buffers in memory.

    Parameters come from a checkpoint, while non-persistent buffers, such as rotary frequencies, are computed by the
    constructors and stand in no file: building a whole model on the meta device would lose them.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter if parameter is None else nn.Parameter(parameter.to("meta"), False))

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
