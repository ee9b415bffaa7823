"""GPTQModel: GPTQ and AWQ checkpoints through its kernels."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from awqbench.backends.linears import count_linears
from awqbench.backends.pretrained import load_pretrained
from awqbench.backends.tokenizer_files import with_tokenizer
from awqbench.backends.torch_engine import TorchEngine
from awqbench.backends.transformers_config import quantization_of
from awqbench.errors import BackendUnavailable, NotApplicable, UserError, first_line, unknown_choice

METHODS = ("awq", "gptq")


class GptqModelBackend(TorchEngine):
    """A 4-bit folder through `GPTQModel.load`; the unquantized model through transformers in the same environment."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `TorchEngine.load`. The first load on a machine compiles its kernels."""
        return {**super().load(options), "engine": "gptqmodel", "engine_version": version("gptqmodel")}

    def build(self, options: dict[str, Any], dtype: torch.dtype) -> Any:
        """Load `weights`; the option `kernel` is a name of GPTQModel's `BACKEND`."""
        found = quantization_of(options["weights"])
        method = found.get("quant_method")
        if method is None:
            return load_pretrained(options, dtype).to(self.device)
        if method not in METHODS:
            raise NotApplicable(f"GPTQModel runs {' and '.join(METHODS)} checkpoints, and this one is {method}")
        try:
            from gptqmodel import BACKEND, GPTQModel
        except ImportError as error:
            raise BackendUnavailable(f"{first_line(error)}: awqbench env create gptqmodel") from error
        asked = (options.get("settings") or {}).get("kernel", "auto")
        kernels = {backend.name.lower(): backend for backend in BACKEND}
        if asked not in kernels:
            raise unknown_choice("option kernel", asked, kernels)
        try:
            with with_tokenizer(options["weights"], options.get("model_dir", "")) as folder:
                loaded = GPTQModel.load(
                    folder,
                    device=str(self.device),
                    backend=kernels[asked],
                    dtype=dtype,
                    trust_remote_code=options.get("trust_remote_code", False),
                )
        except (NotImplementedError, ValueError) as error:
            raise UserError(f"GPTQModel cannot load {options['weights']}: {first_line(error)}") from error
        if method == "gptq" and found.get("sym") is False and self.device.type == "cpu":
            refuse_wrong_zeros(loaded.model, options["dtype"])
        return loaded.model

    def kernel(self) -> str:
        """The classes of the linears, counted."""
        return count_linears(self.model)


def refuse_wrong_zeros(model: Any, dtype: str) -> None:
    """Raise NotApplicable for a kernel that would take every zero point for 8.

    GPTQModel 7.7.0 picks `TorchFusedLinear` for float32 on a CPU; when it packs GPTQ weights anew, it drops their zero
    points, and what comes out is noise.
    """
    if any(type(module).__name__ == "TorchFusedLinear" for module in model.modules()):
        raise NotApplicable(
            f"GPTQModel multiplies asymmetric GPTQ weights in {dtype} on a CPU by TorchFusedLinear, which ignores "
            "their zero points (seen in 7.7.0; allowed: dtype bfloat16 or float16, or option kernel 'torch' with these)"
        )
