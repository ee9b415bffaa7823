"""Quantized checkpoints: a Hugging Face folder with AutoAWQ GEMM tensors, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from awqbench.errors import UserError
from awqbench.formats import autoawq
from awqbench.formats.config import CONFIG, export_config
from awqbench.formats.load import load_quantized, read_quantized
from awqbench.formats.shards import save_shards, weights_hash
from awqbench.formats.summary import RECIPE, inspect_checkpoint
from awqbench.quantization.tensor import QuantizedTensor

__all__ = ["inspect_checkpoint", "load_quantized", "read_quantized", "weights_hash", "write_checkpoint"]

# What a model's folder holds beside weights and config: its tokenizer, chat template, defaults and custom code.
_COPIED = (
    "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "additional_chat_templates/*", "vocab.*", "merges.txt", "*.model", "*.tiktoken", "preprocessor_config.json", "*.py",
    "LICENSE*",
)  # fmt: skip


def write_checkpoint(
    out: Path,
    model_dir: Path,
    model: PreTrainedModel,
    quantized: Mapping[str, QuantizedTensor],
    *,
    bits: int,
    group_size: int,
    not_converted: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    store_dtype: torch.dtype | None = None,
    max_shard_size: int = 5 * 10**9,
) -> None:
    """Write `model` with the linears named in `quantized` replaced by their AutoAWQ GEMM tensors.

    `quantized` maps module names (`model.layers.0.mlp.up_proj`) to integers of one `group_size`. Three-bit codes are
    stored in four-bit nibbles: config.json then says 4 bits, `quantize.json` (the `metadata`) says `effective_bits` 3.
    All other tensors are stored in `store_dtype`; by default as the model holds them or, where that loses nothing, in
    the type its source declares, so that the packed and the fake-quantized model agree exactly. Tied weights are stored
    once. Tokenizer, chat template and generation defaults are copied from `model_dir`. An earlier checkpoint at `out`
    is replaced. On any failure `out` is left as it was.

    Raises UserError when `out` holds something else than a checkpoint, or a linear does not fit the layout.
    """
    out = Path(out)
    for name, tensor in quantized.items():
        if tensor.group_size != group_size or tensor.bits != bits:
            raise ValueError(f"{name}: {tensor.bits} bits in groups of {tensor.group_size}, not {bits} in {group_size}")
    kept = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    kept = [name for name in kept if name not in quantized]
    source = store_dtype or source_dtype(Path(model_dir)) or model.dtype
    tensors = _stored_tensors(model, quantized, source, lossy=store_dtype is not None)
    config = export_config(
        model,
        dtype=str(source).removeprefix("torch."),
        group_size=group_size,
        not_converted=sorted({*not_converted, *kept}),
    )
    recipe = {**(metadata or {}), "format": "autoawq-gemm", "effective_bits": bits, "group_size": group_size}
    with _atomic_folder(out) as folder:
        save_shards(tensors, folder, max_shard_size)
        for name, content in ((CONFIG, config), (RECIPE, recipe)):
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _copy_companions(Path(model_dir), folder)


def source_dtype(model_dir: Path) -> torch.dtype | None:
    """The type that a model folder's config.json declares its weights to be in, if it declares one."""
    try:
        config = json.loads((model_dir / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or ""), None)
    return found if isinstance(found, torch.dtype) else None


def _stored_tensors(
    model: PreTrainedModel, quantized: Mapping[str, QuantizedTensor], dtype: torch.dtype, *, lossy: bool
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = model.state_dict()
    unknown = [name for name in quantized if f"{name}.weight" not in state]
    if unknown:
        raise ValueError(f"the model has no linear {unknown[0]!r}")
    tied = {
        target
        for target, source in getattr(model, "all_tied_weights_keys", {}).items()
        if target in state and source in state and state[target].data_ptr() == state[source].data_ptr()
    }
    skipped = tied | {f"{name}.weight" for name in quantized}
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        if name in skipped:
            continue
        stored = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if not lossy and not torch.equal(stored.to(tensor.dtype), tensor):
            stored = tensor  # a norm with a scale folded in, say
        storage = stored.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory; ties that the model does not declare are stored twice.
        tensors[name] = stored.clone() if storage in seen else stored
        seen.add(storage)
    for name, weight in quantized.items():
        tensors |= {f"{name}.{suffix}": tensor for suffix, tensor in autoawq.pack(weight).items()}
    return tensors


def _copy_companions(model_dir: Path, folder: Path) -> None:
    for pattern in _COPIED:
        for source in sorted(model_dir.glob(pattern)):
            target = folder / source.relative_to(model_dir)
            if source.is_file() and not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(source, target)


@contextmanager
def _atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its name on success and is removed on failure."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} exists and is not a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / RECIPE).is_file():
        raise UserError(f"{out} holds something else than a checkpoint written by awqbench: choose another folder")
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
