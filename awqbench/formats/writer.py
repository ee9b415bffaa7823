"""Writing a checkpoint folder: tensor after tensor into safetensors files, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor

from awqbench.errors import UserError
from awqbench.formats.companions import COMPANIONS
from awqbench.formats.shards import DTYPE_NAMES, INDEX
from awqbench.formats.summary import RECIPE

MAX_SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor to be written: what it is, and how to get it when its turn comes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> Stored:
        """A tensor that is in memory already."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def write_folder(
    out: Path,
    tensors: Mapping[str, Stored],
    files: Mapping[str, str],
    companions: Path,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write tensors, text files by name, and the companions found in a model's folder, as the checkpoint `out`.

    One tensor is in memory at a time. An earlier checkpoint at `out` is replaced; on any failure `out` is left as it
    was. The same input gives the same bytes. Raises UserError when `out` holds something else than a checkpoint.
    """
    with atomic_folder(Path(out)) as folder:
        _write_shards(folder, tensors, max_shard_bytes)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
        _copy_companions(companions, folder)


def refuse_occupied(out: Path) -> None:
    """Raise UserError unless `out` may be written: it is not there, is empty, or holds a checkpoint of ours."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} exists and is not a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / RECIPE).is_file():
        raise UserError(f"{out} holds something else than a checkpoint written by awqbench: choose another folder")


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its name on success and is removed on failure."""
    refuse_occupied(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder = workspace / "new"
        folder.mkdir()
        yield folder
        if out.is_dir():
            os.rename(out, workspace / "old")
        os.rename(folder, out)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _write_shards(folder: Path, tensors: Mapping[str, Stored], max_shard_bytes: int) -> None:
    described = {name: torch.empty(each.shape, dtype=each.dtype, device="meta") for name, each in tensors.items()}
    plan = split_torch_state_dict_into_shards(dict(sorted(described.items())), max_shard_size=max_shard_bytes)
    for file, names in plan.filename_to_tensors.items():
        _write_safetensors(folder / file, {name: tensors[name] for name in names})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": dict(sorted(plan.tensor_to_filename.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_safetensors(path: Path, tensors: Mapping[str, Stored]) -> None:
    """One file (https://huggingface.co/docs/safetensors), wide types first so that every tensor is aligned."""
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        each = tensors[name]
        begin, end = end, end + torch.empty(each.shape, dtype=each.dtype, device="meta").nbytes
        header[name] = {"dtype": DTYPE_NAMES[each.dtype], "shape": list(each.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            tensor = tensors[name].read().detach().cpu().contiguous()
            if tuple(tensor.shape) != tensors[name].shape or tensor.dtype != tensors[name].dtype:
                raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, announced as {tensors[name]}")
            stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            del tensor  # before the next one is read
        stream.flush()
        os.fsync(stream.fileno())


def _copy_companions(model_dir: Path, folder: Path) -> None:
    for pattern in COMPANIONS:
        for source in sorted(model_dir.glob(pattern)):
            target = folder / source.relative_to(model_dir)
            if source.is_file() and not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(source, target)
