"""Which device a spec means. Commands that plan import this, so torch is imported where it is needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from awqbench.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """auto is the first CUDA device where there is one, else the CPU. Raises UserError for one that is not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"unknown device {name!r} (allowed: auto, cpu, cuda, cuda:N)")
    if name == "cpu":
        return torch.device(name)
    if not torch.cuda.is_available():
        raise UserError(
            f"device {name!r} asked for, but this torch ({torch.__version__}) sees no GPU (allowed: auto, cpu)"
        )
    device, count = torch.device(name), torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise UserError(f"device {name!r} asked for, but the last of {count} GPUs is cuda:{count - 1}")
    return device
