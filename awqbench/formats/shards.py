"""safetensors files of a checkpoint folder: one, or several with an index."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from awqbench.errors import UserError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.gguf")
# The types of safetensors files by their names there.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """One tensor as its file's header describes it; the data are not read."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type as torch has it. Raises UserError for one that it does not have."""
        if self.dtype not in DTYPES:
            raise UserError(f"{self.file} holds tensors of type {self.dtype} (allowed: {', '.join(DTYPES)})")
        return DTYPES[self.dtype]

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count


class Shards:
    """The tensors of a checkpoint folder, or of one safetensors file, by name, each read when asked for.

    Raises UserError, naming the file, when a shard is missing, truncated or corrupt.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[Path, Any] = {}

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every tensor's description, read from the headers alone."""
        return {name: entry for file in self._files() for name, entry in _read_header(file).items()}

    def tensor(self, name: str) -> Tensor:
        """Read one tensor."""
        file = self.entries[name].file
        try:
            if file not in self._open:
                self._open[file] = safe_open(str(file), framework="pt")
            tensor: Tensor = self._open[file].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"cannot read {name} from {file}: {error}") from None
        return tensor

    def close(self) -> None:
        """Unmap the files until a tensor is asked for again."""
        self._open.clear()

    def _files(self) -> list[Path]:
        if self.folder.is_file():
            return [self.folder]
        index = self.folder / INDEX
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError):
                raise UserError(f"{index} is not a safetensors index") from None
        else:
            names = [SINGLE]
        files = [self.folder / name for name in names]
        for file in files:
            if not file.is_file():
                raise UserError(f"no weights at {file}")
        return files


def _read_header(file: Path) -> dict[str, Entry]:
    """Parse a safetensors header (https://huggingface.co/docs/safetensors) and check the file's length against it."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, size)))
        header.pop("__metadata__", None)
        entries = {
            name: Entry(file, item["dtype"], tuple(item["shape"]), item["data_offsets"][1] - item["data_offsets"][0])
            for name, item in header.items()
        }
        end = 8 + length + max((item["data_offsets"][1] for item in header.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file} is not a safetensors file, or is truncated ({size} bytes)") from None
    if size != end:
        raise UserError(f"{file} is truncated or corrupt: {size} bytes, its header describes {end}")
    return entries


def save_shards(tensors: Mapping[str, Tensor], folder: Path, max_shard_size: int) -> None:
    """Write tensors as safetensors files of at most `max_shard_size` bytes (or one tensor); an index if several."""
    plan = split_torch_state_dict_into_shards(dict(tensors), max_shard_size=max_shard_size)
    for file, names in plan.filename_to_tensors.items():
        shard = {name: tensors[name].contiguous() for name in names}
        # A single metadata key: more would be written in a random order, and equal checkpoints would differ.
        save_file(shard, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": dict(sorted(plan.tensor_to_filename.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def weights_hash(folder: Path) -> str:
    """sha256 over the names and contents of a folder's weight files; raises UserError when it has none."""
    files = sorted({file for pattern in WEIGHT_PATTERNS for file in Path(folder).glob(pattern)})
    if not files:
        raise UserError(f"no weight files ({', '.join(WEIGHT_PATTERNS)}) in {folder}")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
        digest.update(file.name.encode() + b"\0" + content)
    return digest.hexdigest()
