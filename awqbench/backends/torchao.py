"""torchao: the unquantized model, its linears quantized once it is loaded."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from awqbench.backends.linears import count_linears
from awqbench.backends.pretrained import load_pretrained
from awqbench.backends.settings import choice
from awqbench.backends.torch_engine import TorchEngine
from awqbench.errors import BackendUnavailable, UserError, first_line

CONFIGS = ("int4", "int8")
# What the packed int4 products of CPUs and GPUs are made for.
GROUP_SIZES = (128, 32, 64, 256)


class TorchAoBackend(TorchEngine):
    """Weight-only int4 or int8; with `unquantized` the plain model in the same environment.

    The output embedding stays as it is, as in every other 4-bit checkpoint compared here.
    """

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `TorchEngine.load`."""
        return {**super().load(options), "engine": "torchao", "engine_version": version("torchao")}

    def build(self, options: dict[str, Any], dtype: torch.dtype) -> Any:
        """Load `weights`, then quantize as `settings` say: config, group_size."""
        settings = options.get("settings") or {}
        name = choice(settings, "config", CONFIGS)
        group_size = choice(settings, "group_size", GROUP_SIZES)
        if name == "int8" and "group_size" in settings:
            raise UserError("option group_size is one of int4, and config is 'int8' (allowed: leave it out)")
        model = load_pretrained(options, dtype).to(self.device)
        if options.get("unquantized"):
            return model
        linears = {n: m for n, m in model.named_modules() if type(m) is nn.Linear and m is not _head(model)}
        if name == "int4":
            # torchao would skip them in silence, and the model would be less quantized than it seems.
            for linear, module in linears.items():
                if module.in_features % group_size:
                    raise UserError(
                        f"{linear} has {module.in_features} inputs, not a multiple of group_size {group_size} "
                        f"(allowed: {', '.join(str(g) for g in sorted(GROUP_SIZES))}, where all inputs divide)"
                    )
        return _quantize(model, set(linears), name, group_size, self.device)

    def kernel(self) -> str:
        """The classes of the weights, counted."""
        return count_linears(self.model)


def _quantize(model: Any, linears: set[str], name: str, group_size: int, device: torch.device) -> Any:
    """Replace the weights of `linears`."""
    try:
        from torchao.quantization import quantize_

        config = _int8() if name == "int8" else _int4(group_size, device)
        quantize_(model, config, filter_fn=lambda module, path: path in linears)
    except (ImportError, NotImplementedError, AssertionError) as error:
        found = version("torchao")
        raise BackendUnavailable(
            f"torchao {found} cannot quantize to {name} on {device.type}: {first_line(error)} (config 'int8' needs no "
            "other package; awqbench env create torchao has what was seen to run)"
        ) from error
    return model


def _int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig()


def _int4(group_size: int, device: torch.device) -> Any:
    if device.type == "cpu":
        # torchao's ordinary layouts want mslk or CUDA; the one for CPUs is still kept among the prototypes.
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=group_size, set_inductor_config=False)
    from torchao.quantization import Int4WeightOnlyConfig

    return Int4WeightOnlyConfig(
        group_size=group_size, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )


def _head(model: Any) -> Any:
    return model.get_output_embeddings()
