"""Loading a quantized checkpoint: packed linears go from file to module without a dense weight in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from awqbench.errors import UserError
from awqbench.formats import autoawq
from awqbench.formats.config import CONFIG, model_config, read_config
from awqbench.formats.shards import Shards
from awqbench.formats.summary import RECIPE
from awqbench.ops.linear import QuantizedLinear
from awqbench.quantization.tensor import QuantizedTensor

_MARK = ".qweight"


def load_quantized(
    checkpoint: Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    kernel: str = "auto",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A causal LM in evaluation mode whose quantized linears are `QuantizedLinear`s; all else in `dtype`.

    `kernel` is as `awqbench.ops.select_kernel` has it. Raises UserError, naming the file, when the checkpoint is not an
    AutoAWQ one, is incomplete, truncated or corrupt, or does not fit its own config.json.
    """
    from transformers import AutoModelForCausalLM

    checkpoint = Path(checkpoint)
    read_config(checkpoint)
    shards = Shards(checkpoint)
    # Older tools stored the rotary frequencies, which every model computes.
    names = {name for name in shards.entries if not name.endswith("rotary_emb.inv_freq")}
    bits = effective_bits(checkpoint)
    config = model_config(checkpoint, trust_remote_code)
    with _parameters_on_meta():
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
        except ValueError as error:
            raise UserError(f"{checkpoint / CONFIG}: no causal language model: {str(error).splitlines()[0]}") from None
    model = model.eval().requires_grad_(False)

    for name in sorted(name.removesuffix(_MARK) for name in names if name.endswith(_MARK)):
        bias = shards.tensor(f"{name}.bias").to(dtype) if f"{name}.bias" in names else None
        linear = QuantizedLinear(_read(shards, name, bits), bias, dtype=dtype, device=device, kernel=kernel)
        _replace(model, name, linear, checkpoint)
        names -= {f"{name}.{suffix}" for suffix in (*autoawq.SUFFIXES, "bias")}
    for name in sorted(names):
        _assign(model, name, shards.tensor(name), dtype, checkpoint)
    model.tie_weights()
    _refuse_missing(model, checkpoint)
    return model.to(device)


def read_quantized(checkpoint: Path) -> dict[str, QuantizedTensor]:
    """The integers, scales and zero points of every quantized linear, by module name; errors as `load_quantized`."""
    checkpoint = Path(checkpoint)
    read_config(checkpoint)
    shards, bits = Shards(checkpoint), effective_bits(checkpoint)
    linears = sorted(name.removesuffix(_MARK) for name in shards.entries if name.endswith(_MARK))
    return {name: _read(shards, name, bits) for name in linears}


def effective_bits(checkpoint: Path) -> int:
    """Bits that the codes use: what quantize.json says, 4 for a checkpoint that another tool wrote."""
    try:
        return int(json.loads((checkpoint / RECIPE).read_text(encoding="utf-8"))["effective_bits"])
    except FileNotFoundError:
        return autoawq.BITS
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{checkpoint / RECIPE} does not say effective_bits") from None


def _read(shards: Shards, name: str, bits: int) -> QuantizedTensor:
    absent = [suffix for suffix in autoawq.SUFFIXES if f"{name}.{suffix}" not in shards.entries]
    if absent:
        raise UserError(f"{shards.folder}: {name}.{absent[0]} is missing")
    try:
        return autoawq.unpack({suffix: shards.tensor(f"{name}.{suffix}") for suffix in autoawq.SUFFIXES}, bits)
    except UserError as error:
        raise UserError(f"{shards.folder}: {name}: {error}") from None


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Create modules with parameters on the meta device and buffers in memory.

    Parameters come from the checkpoint, while non-persistent buffers, such as rotary frequencies, are computed by the
    constructors and stand in no file, so that building the whole model on the meta device would lose them.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter if parameter is None else nn.Parameter(parameter.to("meta"), False))

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _replace(model: nn.Module, name: str, linear: QuantizedLinear, checkpoint: Path) -> None:
    try:
        replaced = model.get_submodule(name)
    except AttributeError:
        raise UserError(f"{checkpoint}: {name} is not a module of {type(model).__name__}") from None
    if isinstance(replaced, Conv1D):
        wanted = (replaced.weight.shape[1], replaced.weight.shape[0])
    elif isinstance(replaced, nn.Linear):
        wanted = (replaced.out_features, replaced.in_features)
    else:
        raise UserError(f"{checkpoint}: {name} is a {type(replaced).__name__}, not a linear layer")
    if wanted != (linear.out_features, linear.in_features):
        found = f"{linear.out_features} x {linear.in_features}"
        raise UserError(f"{checkpoint}: {name} is {found}, config.json wants {wanted[0]} x {wanted[1]}")
    model.set_submodule(name, linear)


def _assign(model: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype, checkpoint: Path) -> None:
    path, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(path)
        current = getattr(module, leaf)
    except AttributeError:
        raise UserError(f"{checkpoint}: tensor {name} has no place in {type(model).__name__}") from None
    if current.shape != tensor.shape:
        raise UserError(f"{checkpoint}: {name} is {list(tensor.shape)}, config.json wants {list(current.shape)}")
    value = tensor.to(dtype) if tensor.is_floating_point() else tensor
    setattr(module, leaf, nn.Parameter(value, False) if leaf in module._parameters else value)


def _refuse_missing(model: nn.Module, checkpoint: Path) -> None:
    missing = sorted(name for name, tensor in model.named_parameters() if tensor.is_meta)
    if missing:
        raise UserError(f"{checkpoint}: {len(missing)} tensors are missing, first {missing[0]}")
