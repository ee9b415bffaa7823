"""A packed 4-bit checkpoint through the W4A16 linear. Serves awq and rtn: they differ in weights only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from awqbench import __version__
from awqbench.backends.torch_engine import TorchEngine
from awqbench.formats.load import load_quantized
from awqbench.ops.linear import QuantizedLinear
from awqbench.runtime.attach import Runtime, attach


class PackedBackend(TorchEngine):
    """Weights stay packed in memory; `kernel` names what multiplies them."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `Backend.load`."""
        told = super().load(options)
        return {**told, "engine": "awqbench", "engine_version": f"{__version__}, transformers {told['engine_version']}"}

    def build(self, options: dict[str, Any], dtype: torch.dtype) -> Any:
        """Load `weights`, an AutoAWQ, compressed-tensors or GPTQ folder."""
        return load_quantized(
            Path(options["weights"]),
            dtype,
            str(self.device),
            trust_remote_code=options.get("trust_remote_code", False),
        )

    def attach(self, options: dict[str, Any]) -> Runtime:
        """Native step or CUDA graph where proved to fit; the option `runtime` is one of `awqbench.runtime.RUNTIMES`."""
        return attach(self.model, self.device, options.get("runtime") or "auto")

    def kernel(self) -> str:
        """The kernels in use, with the number of linears each serves."""
        counts: dict[str, int] = {}
        for module in self.model.modules():
            if isinstance(module, QuantizedLinear):
                counts[module.kernel] = counts.get(module.kernel, 0) + 1
        return ", ".join(f"{name} x{count}" for name, count in sorted(counts.items())) or "torch dense"
