"""Weights in torch's own files, which are pickles: read only where the user allows it, and tensors only."""

from __future__ import annotations

import json
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import UserError
from awqbench.formats.shards import DTYPE_NAMES, Entry

_INDEX = "pytorch_model.bin.index.json"


def pickled_files(folder: Path) -> list[Path]:
    """The .bin files of a folder that has no safetensors."""
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json")):
        return []
    index = folder / _INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [folder / name for name in names]
    return sorted(folder.glob("pytorch_model*.bin"))


class Pickles:
    """The tensors of pickled files, mapped into memory; the same interface as `Shards`."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files

    @cached_property
    def _tensors(self) -> dict[str, tuple[Path, Tensor]]:
        found: dict[str, tuple[Path, Tensor]] = {}
        for file in self._files:
            try:
                content: dict[str, Any] = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            except pickle.UnpicklingError:
                raise UserError(f"cannot read {file}: it holds more than tensors, or is damaged") from None
            except (OSError, RuntimeError, ValueError) as error:
                raise UserError(f"cannot read {file}: {(str(error).strip() or 'no reason').splitlines()[0]}") from None
            found |= {name: (file, value) for name, value in content.items() if isinstance(value, Tensor)}
        return found

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every tensor's description."""
        return {
            name: Entry(file, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), tensor.nbytes)
            for name, (file, tensor) in self._tensors.items()
        }

    def tensor(self, name: str) -> Tensor:
        """One tensor, still backed by its file."""
        return self._tensors[name][1]

    def close(self) -> None:
        """Unmap the files until a tensor is asked for again."""
        self.__dict__.pop("_tensors", None)
