"""bitsandbytes: the unquantized model, quantized while it is loaded."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from awqbench.backends.linears import count_linears
from awqbench.backends.pretrained import load_pretrained
from awqbench.backends.settings import choice, flag
from awqbench.backends.torch_engine import TorchEngine, storage_bytes
from awqbench.errors import BackendUnavailable, UserError, first_line


class BitsAndBytesBackend(TorchEngine):
    """nf4 or fp4 in 4 bits, or LLM.int8(); with `unquantized` the plain model in the same environment."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `TorchEngine.load`."""
        return {**super().load(options), "engine": "bitsandbytes", "engine_version": version("bitsandbytes")}

    def build(self, options: dict[str, Any], dtype: torch.dtype) -> Any:
        """Load `weights`, quantized as `settings` say: bits, quant_type, double_quant."""
        more = {} if options.get("unquantized") else {"quantization_config": configuration(options, dtype)}
        try:
            return load_pretrained(options, dtype, device_map={"": self.device}, **more)
        except ImportError as error:
            raise BackendUnavailable(f"{first_line(error)}: awqbench env create bitsandbytes") from error

    def kernel(self) -> str:
        """The classes of the linears, counted, with the number format of the 4-bit ones."""
        formats = sorted({str(state.quant_type) for state in self._states()})
        return count_linears(self.model) + "".join(f" ({name})" for name in formats)

    def weight_bytes(self) -> int:
        """Scales lie beside the 4-bit weights, not among the model's parameters."""
        beside = [tensor for state in self._states() for tensor in _scales(state)]
        return storage_bytes([*self.model.parameters(), *self.model.buffers(), *beside])

    def _states(self) -> list[Any]:
        weights = (getattr(module, "weight", None) for module in self.model.modules())
        return [state for weight in weights if (state := getattr(weight, "quant_state", None)) is not None]


def _scales(state: Any) -> list[torch.Tensor]:
    """The scales of one weight; `state2` holds those of the scales, with double quantization."""
    own = [state.absmax, state.code]
    return own + (_scales(state.state2) if getattr(state, "state2", None) is not None else [])


def configuration(options: dict[str, Any], dtype: torch.dtype) -> Any:
    """transformers' BitsAndBytesConfig. Raises UserError for options outside what bitsandbytes has."""
    from transformers import BitsAndBytesConfig

    settings = options.get("settings") or {}
    if choice(settings, "bits", (4, 8)) == 8:
        ignored = sorted({"quant_type", "double_quant"} & set(settings))
        if ignored:
            raise UserError(f"option {ignored[0]} is one of 4 bits, and bits is 8 (allowed: leave it out)")
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=choice(settings, "quant_type", ("nf4", "fp4")),
        bnb_4bit_use_double_quant=flag(settings, "double_quant", False),
        bnb_4bit_compute_dtype=dtype,
    )
