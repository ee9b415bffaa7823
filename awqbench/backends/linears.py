"""What really multiplies in a loaded model: its linears' classes, counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn


def count_linears(model: Any) -> str:
    """Each class of linear and how many there are: `Linear4bit x210, Linear x1`.

    A plain `Linear` whose weight is a tensor subclass is named with it, as the subclass does the work.
    """
    counts = Counter(name for module in model.modules() if (name := _linear(module)))
    return ", ".join(f"{name} x{count}" for name, count in sorted(counts.items())) or "no linears"


def _linear(module: nn.Module) -> str | None:
    # Engines' own linears need not inherit nn.Linear; all of them know their two sizes.
    if not (hasattr(module, "in_features") and hasattr(module, "out_features")):
        return None
    name = type(module).__name__
    weight = getattr(module, "weight", None)
    inner = type(weight.data) if isinstance(weight, nn.Parameter) else type(weight)
    if type(module) is nn.Linear and inner is not torch.Tensor and weight is not None:
        return f"{name}[{inner.__name__}]"
    if getattr(module, "quantization_scheme", None) is not None:
        return f"{name}[compressed-tensors]"
    return name
