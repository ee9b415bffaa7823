"""From finished blocks to a checkpoint: packed linears, changed tensors, and all else copied from the source."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awqbench.formats.card import model_card
from awqbench.formats.config import export_config
from awqbench.formats.layouts import Scheme
from awqbench.formats.settings import CONFIG, QUANTIZATION
from awqbench.formats.shards import Shards
from awqbench.formats.summary import RECIPE
from awqbench.formats.writer import Stored, write_folder
from awqbench.modeling.pickles import Pickles
from awqbench.quantization.outcome import FOLDED, Storage
from awqbench.quantization.rounding import quantize
from awqbench.quantization.workspace import Workspace


def assemble(
    out: Path,
    storage: Storage,
    workspace: Workspace,
    blocks: int,
    metadata: Mapping[str, Any],
    outside: Sequence[str],
) -> None:
    """Write the checkpoint from the workspace's finished blocks; whole or not at all.

    `metadata` becomes quantize.json; `outside` are other linears that nobody is to quantize.
    """
    weights, layout = storage.weights, storage.layout
    mixed = metadata["mixed"]
    raised = {row["name"] for row in mixed["linears"]} if mixed else set()
    keep_bits = mixed["keep_bits"] if mixed else 16
    reader = _Reader()
    tensors: dict[str, Stored] = {}
    replaced: set[str] = set()
    schemes: dict[str, Scheme] = {}
    for index in range(blocks):
        record = workspace.record(index)
        replaced |= set(record["replaces"])
        files = Shards(workspace.tensors_file(index))
        found = dict(record["quantized"])
        dropped = {f"{found[name]}.{suffix}" for name in raised & set(found) for suffix in layout.SUFFIXES}
        for name in files.entries:
            if not name.startswith(FOLDED) and name not in dropped:
                tensors[name] = reader.stored(files, name)
        for name in sorted(raised & set(found)):
            tensors |= _raised(storage, reader, files, name, keep_bits, name in record["transposed"])
        schemes |= {
            on_disk: Scheme(keep_bits, storage.scheme.group_size, storage.scheme.symmetric)
            if name in raised
            else storage.scheme
            for name, on_disk in found.items()
            if not (name in raised and keep_bits == 16)
        }
    for name in _copied(storage):
        if name not in replaced:
            tensors[name] = reader.stored(weights.files, name)
    full = {*metadata["kept"], *outside, *(raised if keep_bits == 16 else ())}
    full |= {storage.on_disk(name) for name in full}  # readers know modules by one name or the other
    config = export_config(
        weights.model,
        dtype=str(_dominant_dtype(storage)).removeprefix("torch."),
        quantization=layout.config(schemes, sorted(full)),
    )
    if not schemes:
        del config[QUANTIZATION]  # every linear kept: the scaled model in full precision
    recipe = {
        **metadata,
        "format": layout.name,
        "effective_bits": storage.scheme.bits,
        "group_size": storage.scheme.group_size,
    }
    texts = {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in
             ((CONFIG, config), (RECIPE, recipe))}  # fmt: skip
    write_folder(out, tensors, texts | {"README.md": model_card(recipe, config)}, weights.folder)


def _raised(
    storage: Storage, reader: _Reader, files: Shards, name: str, bits: int, transposed: bool
) -> dict[str, Stored]:
    """A linear that mixed precision keeps: in the source's type, or rounded to nearest at more bits.

    `transposed`: its weight lies in `files` as the architecture has it, [in, out].
    """
    on_disk, key = storage.on_disk(name), f"{FOLDED}{name}"
    if bits == 16:
        return {f"{on_disk}.weight": reader.stored(files, key)}
    scheme = Scheme(bits, storage.scheme.group_size, storage.scheme.symmetric)

    def pack() -> dict[str, Tensor]:
        weight = files.tensor(key).T if transposed else files.tensor(key)
        group = weight.shape[1] // scheme.groups(weight.shape[1])
        return storage.layout.pack(quantize(weight, bits, group, symmetric=scheme.symmetric), scheme)

    return {
        f"{on_disk}.{suffix}": Stored(tuple(tensor.shape), tensor.dtype, partial(_item, pack, suffix))
        for suffix, tensor in pack().items()
    }


def _item(pack: Callable[[], dict[str, Tensor]], suffix: str) -> Tensor:
    return pack()[suffix]


def _copied(storage: Storage) -> list[str]:
    """The source's tensors that the model has, each tied one once."""
    weights = storage.weights
    tied = getattr(weights.model, "all_tied_weights_keys", {})
    skipped = {target for target, source in tied.items() if source in weights.sources}
    return [name for target, names in weights.sources.items() if target not in skipped for name in names]


def _dominant_dtype(storage: Storage) -> torch.dtype:
    """The type that most of the source's bytes are in."""
    total: dict[torch.dtype, int] = {}
    for entry in storage.weights.files.entries.values():
        total[entry.torch_dtype] = total.get(entry.torch_dtype, 0) + entry.nbytes
    return max(total, key=lambda dtype: total[dtype])


class _Reader:
    """Reads tensors one after another, with one set of files mapped at a time.

    Pages of a mapped file count as this process's memory once they were read.
    """

    def __init__(self) -> None:
        self._mapped: Shards | Pickles | None = None

    def stored(self, files: Shards | Pickles, name: str) -> Stored:
        """A tensor to be read from `files` when its turn comes."""

        def read() -> Tensor:
            if self._mapped is not None:
                self._mapped.close()
            self._mapped = files
            return files.tensor(name)

        entry = files.entries[name]
        return Stored(entry.shape, entry.torch_dtype, read)
