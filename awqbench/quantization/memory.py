"""What quantizing will need, said before it starts: memory that does not grow with the number of blocks, and disk."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from awqbench.cores import MOUNTED, OWN, groups
from awqbench.errors import UserError
from awqbench.quantization.blocks import linear_at
from awqbench.quantization.recipe import Recipe

_BATCH_TOKENS = 512
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LIBRARIES = 150 * 10**6  # what torch and its libraries take when they first compute: measured


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes. `memory` names the parts of one process; `workspace` and `checkpoint` are on disk."""

    memory: dict[str, int]
    workspace: int
    checkpoint: int
    workers: int = 1

    @property
    def peak(self) -> int:
        """Memory at the highest point: the process, and the larger of the two phases."""
        parts = dict(self.memory)
        process = parts.pop("process")
        embeddings = parts.pop("embeddings")
        own = process + max(embeddings, sum(parts.values()))
        return own if self.workers == 1 else self.workers * own + process + embeddings

    def refuse(self, limit: int | None, folder: Path, there: int = 0) -> None:
        """Raise UserError if the machine, or the limit given, or the disk, is too small. `there`: bytes of unfinished
        work that lie on the disk already."""
        room = available_memory() + self.memory["process"]
        for what, allowed in (("--max-memory", limit), ("the machine has free", room)):
            if allowed is not None and self.peak > allowed:
                largest = max(self.memory, key=lambda part: self.memory[part])
                raise UserError(
                    f"quantizing needs about {in_words(self.peak)} of memory, most of it for {largest}"
                    f" ({in_words(self.memory[largest])}); {what}: {in_words(allowed)}"
                )
        disk = max(self.workspace - there, 0) + self.checkpoint
        free = shutil.disk_usage(_existing(folder)).free
        if disk > free:
            more = " more" if there else ""
            raise UserError(
                f"quantizing needs about {in_words(disk)}{more} of disk; {folder} has {in_words(free)} free"
            )


def estimate(
    model: nn.Module,
    stack: str,
    names: list[str],
    recipe: Recipe,
    dtype: torch.dtype,
    tokens: int,
    workers: int = 1,
    *,
    sensitivity: bool,
) -> Needs:
    """Needs of a model whose skeleton is given, with experts as linears; `names` are the linears to quantize.

    An upper estimate: every temporary of the largest block counts at once.
    """
    blocks = list(model.get_submodule(stack).named_children())
    outer = sum(p.numel() for name, p in model.named_parameters() if not f"{name}.".startswith(f"{stack}."))
    size = dtype.itemsize
    largest, working = 0, 0
    for index, block in blocks:
        parameters = sum(parameter.numel() for parameter in block.parameters())
        prefix = f"{stack}.{index}."
        shapes = {
            name.removeprefix(prefix): tuple(linear_at(model, name).weight.shape)
            for name in names
            if name.startswith(prefix)
        }
        largest = max(largest, parameters * size)
        working = max(working, _working(shapes, recipe, sensitivity))
    width = getattr(getattr(model, "config", None), "hidden_size", 0) or 0
    activations = _BATCH_TOKENS * 4 * 12 * max(width, _largest_side(model, names) // 2) if tokens else 0
    all_weights = sum(parameter.numel() for parameter in model.parameters())
    quantized = sum(linear_at(model, name).weight.numel() for name in names)
    packed = round(quantized * (recipe.bits + 0.5) / 8)
    return Needs(
        memory={
            "process": process_memory() + _LIBRARIES,
            "embeddings": outer * size + largest,
            "the weights of a block": largest,
            "searching and rounding": working,
            "activations": activations,
        },
        workspace=2 * tokens * width * size + packed + (2 * quantized if sensitivity else 0),
        checkpoint=packed + 2 * (all_weights - quantized),
        workers=workers,
    )


def _largest_side(model: nn.Module, names: list[str]) -> int:
    """The largest input or output of a linear."""
    return max((max(linear_at(model, name).weight.shape) for name in names), default=0)


def _working(shapes: Mapping[str, tuple[int, ...]], recipe: Recipe, sensitivity: bool) -> int:
    """Float32 copies of the linears, their codes, temporaries of the largest, and second moments of their inputs."""
    weights = [out * inputs for out, inputs in shapes.values()]
    if not weights:
        return 0
    copies = (2 if sensitivity else 1) * 4 + 1 + recipe.bits / 8
    moments = {(name.rpartition(".")[0], inputs): inputs * inputs for name, (_, inputs) in shapes.items()}
    temporaries = 4 * max(weights) * 5 + (4 * 8 * max(moments.values()) if recipe.compensates else 0)
    return round(sum(weights) * copies + temporaries + 4 * (sum(moments.values()) + max(moments.values())))


def process_memory() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def hold_freed() -> None:
    """Let freed memory stay with this process until `give_back`, for the next temporary of a block.

    glibc would hand most of it back at once, and have the system clear the same pages for every trial of a search.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most that glibc takes; what is larger is mapped by itself
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 28)


def give_back() -> None:
    """Hand freed memory back to the system.

    glibc keeps what lies between live allocations, and a little of each block's work would stay for ever.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def available_memory(mounted: Path = MOUNTED, own: Path = OWN) -> int:
    """Bytes the system can give, without swapping, and this process's control groups (a container's limit) let it."""
    with open("/proc/meminfo") as lines:
        there = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)
    return min([there, *(left for group in groups("memory", mounted, own) if (left := _left(group)) is not None)])


def _left(group: Path) -> int | None:
    """Bytes that a control group may still take, file caches that it would give up among them; None: no limit."""
    new = (group / "memory.max").is_file()
    limit, usage = ("memory.max", "memory.current") if new else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cache = int(stat.get("inactive_file" if new else "total_inactive_file", 0))
        return max(0, int((group / limit).read_text()) - int((group / usage).read_text()) + cache)
    except (OSError, ValueError):  # "max" among them
        return None


def in_words(size: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
