"""Loading a quantized checkpoint: packed linears go from file to module without a dense weight in between."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from awqbench.errors import UserError
from awqbench.formats import autoawq
from awqbench.formats.config import layout_of, model_config, read_config, read_schemes
from awqbench.formats.layouts import Readable, Scheme
from awqbench.formats.placing import (
    assign,
    experts_on_disk,
    linear_name,
    refuse_missing,
    replace_linear,
    unfuse_experts_of,
)
from awqbench.formats.settings import CONFIG
from awqbench.formats.shards import Shards
from awqbench.formats.summary import RECIPE
from awqbench.modeling.convert import load_converted
from awqbench.modeling.names import Names
from awqbench.modeling.skeleton import parameters_on_meta
from awqbench.ops.linear import QuantizedLinear
from awqbench.quantization.tensor import QuantizedTensor

Make = Callable[[str, QuantizedTensor, Tensor | None], nn.Module]


def load_quantized(
    checkpoint: Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    kernel: str = "auto",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A causal LM in evaluation mode whose quantized linears are `QuantizedLinear`s; all else in `dtype`.

    `kernel` is as `awqbench.ops.select_kernel` has it. Raises UserError as `load_with` does, and for an activation
    order, which no kernel here multiplies.
    """

    def packed(name: str, weight: QuantizedTensor, bias: Tensor | None) -> QuantizedLinear:
        return QuantizedLinear(weight, bias, dtype=dtype, device=device, kernel=kernel)

    return load_with(packed, Path(checkpoint), dtype, trust_remote_code=trust_remote_code).to(device)


def load_with(
    make: Make, checkpoint: Path, dtype: torch.dtype = torch.float32, *, trust_remote_code: bool = False
) -> PreTrainedModel:
    """A causal LM in evaluation mode; `make` turns the name in the model, the integers and the bias of each quantized
    linear into a module, and all else is in `dtype`.

    Reads AutoAWQ GEMM, compressed-tensors pack-quantized and GPTQ folders. Experts that are quantized become linears of
    their own; others stay as transformers has them. Raises UserError, naming the file, when the checkpoint is in
    another format, is incomplete, truncated or corrupt, or does not fit its own config.json.
    """
    packed = _Packed.open(checkpoint)
    model = _empty(packed.folder, dtype, trust_remote_code)
    try:
        _fill(model, packed, dtype, make)
    except UserError as error:
        message = str(error)
        raise error if message.startswith(str(checkpoint)) else UserError(f"{checkpoint}: {message}") from None
    return model


def read_quantized(checkpoint: Path) -> dict[str, QuantizedTensor]:
    """Integers, scales and zero points of every quantized linear, by its name on disk; errors as `load_quantized`."""
    packed = _Packed.open(Path(checkpoint))
    return {name: packed.read(name) for name in packed.schemes}


def effective_bits(checkpoint: Path) -> int:
    """Bits that an AutoAWQ checkpoint's codes use: what quantize.json says, 4 where another tool wrote it."""
    try:
        return int(json.loads((checkpoint / RECIPE).read_text(encoding="utf-8"))["effective_bits"])
    except FileNotFoundError:
        return autoawq.BITS
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{checkpoint / RECIPE} does not say effective_bits") from None


@dataclass(frozen=True)
class _Packed:
    """The quantized linears of a folder, by their names on disk, each read when asked for."""

    folder: Path
    shards: Shards
    layout: Readable
    schemes: Mapping[str, Scheme]

    @classmethod
    def open(cls, folder: Path) -> _Packed:
        config = read_config(folder)
        shards, layout = Shards(folder), layout_of(config)
        mark = f".{layout.SUFFIXES[0]}"
        found = sorted(name.removesuffix(mark) for name in shards.entries if name.endswith(mark))
        try:
            schemes = read_schemes(config, found)
        except UserError as error:
            raise UserError(f"{folder / CONFIG}: {error}") from None
        if layout.name == autoawq.name:
            bits = effective_bits(folder)
            schemes = {name: replace(scheme, bits=bits) for name, scheme in schemes.items()}
        return cls(folder, shards, layout, schemes)

    def tensors(self, linear: str) -> dict[str, str]:
        """Names of the tensors that make up a quantized linear, by suffix; an activation order among them."""
        suffixes = (*self.layout.SUFFIXES, "g_idx", "weight_g_idx")
        return {suffix: name for suffix in suffixes if (name := f"{linear}.{suffix}") in self.shards.entries}

    def read(self, linear: str) -> QuantizedTensor:
        found = self.tensors(linear)
        optional = {"weight_zero_point"}
        absent = [suffix for suffix in self.layout.SUFFIXES if suffix not in found and suffix not in optional]
        if absent:
            raise UserError(f"{self.folder}: {linear}.{absent[0]} is missing")
        for suffix, name in found.items():
            shape = self.shards.entries[name].shape
            fits = shape == (2,) if suffix == "weight_shape" else len(shape) == 2 - suffix.endswith("g_idx")
            if not fits:
                raise UserError(f"{self.folder}: {name} has shape {list(shape)}, which is not one linear's")
        try:
            return self.layout.unpack(
                {suffix: self.shards.tensor(name) for suffix, name in found.items()}, self.schemes[linear]
            )
        except UserError as error:
            raise UserError(f"{self.folder}: {linear}: {error}") from None


def _empty(checkpoint: Path, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    config = model_config(checkpoint, trust_remote_code)
    with parameters_on_meta():
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=dtype, trust_remote_code=trust_remote_code
            )
        except ValueError as error:
            raise UserError(f"{checkpoint / CONFIG}: no causal language model: {str(error).splitlines()[0]}") from None
    return model.eval().requires_grad_(False)


def _fill(model: PreTrainedModel, packed: _Packed, dtype: torch.dtype, make: Make) -> None:
    """Give every parameter and buffer what the files hold for it."""
    shards, names = packed.shards, Names(model)
    places = {name: names.in_model(name) for name in shards.entries}
    ignored = [r"rotary_emb\.inv_freq$", *(model._keys_to_ignore_on_load_unexpected or ())]  # computed, or not modelled
    rest = {
        name
        for name, place in places.items()
        # As transformers has it, only what is unexpected: GPT-2's "attn.bias" would take c_attn's bias, too.
        if place or not any(re.search(pattern, name) for pattern in ignored)
    }
    linears = [name for name in packed.schemes if f"{name}.{packed.layout.SUFFIXES[0]}" in rest]
    # Experts that were kept lie there one by one too, under names that transformers does not always know.
    kept = [name.rpartition(".")[0] for name in rest if places[name] is None]
    unfuse_experts_of(model, names, [*linears, *kept])
    experts = experts_on_disk(model)

    for name in linears:
        bias = shards.tensor(f"{name}.bias").to(dtype) if f"{name}.bias" in rest else None
        place = linear_name(model, names, experts, name)
        replace_linear(model, place, make(place, packed.read(name), bias))
        rest -= {*packed.tensors(name).values(), f"{name}.bias"}

    converted = []
    for name in sorted(rest):
        owner, _, leaf = name.rpartition(".")
        if owner in experts:
            assign(model, f"{experts[owner]}.{leaf}", shards.tensor(name), dtype)
        elif places[name] and names.merged(name):
            converted.append(name)
        else:
            assign(model, places[name] or name, shards.tensor(name), dtype)
    load_converted(model, names, converted, shards.tensor)
    # Told what is missing, transformers ties to whichever of two the files hold, and not at all where they differ.
    missing = {name for name, tensor in model.named_parameters(remove_duplicate=False) if tensor.is_meta}
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    refuse_missing(model)
