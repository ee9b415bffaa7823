"""What a spec may ask of llama.cpp, checked, and what is true of a loaded file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from awqbench.backends.llamacpp.devices import cuda_uuids, on_gpus
from awqbench.backends.llamacpp.library import Library
from awqbench.backends.llamacpp.model import FLASH_ATTENTION, KV_TYPES, MAX_SEQUENCES, ContextSettings, Model
from awqbench.cores import usable_cores
from awqbench.errors import UserError, unknown_choice

# Logits of one pass, numbers: 2**26 are 256 MiB. A large vocabulary makes the passes smaller.
LOGIT_NUMBERS = 1 << 26
_DTYPES = {"all F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of one engine, with nothing left to decide."""

    gpu_layers: int
    main_gpu: int | None
    mmap: bool | None
    batch_size: int
    batch_tokens: int
    max_positions: int
    flash_attention: str
    kv_type: str
    threads: int

    @classmethod
    def read(cls, options: Mapping[str, Any], library: Library) -> Options:
        """From the worker's options. Raises UserError naming a setting of the wrong kind, or a device that is not
        there."""
        settings: Mapping[str, Any] = options.get("settings") or {}
        device = str(options.get("device") or "auto")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise UserError(f"unknown device {device!r} (allowed: auto, cpu, cuda, cuda:N)")
        if device.startswith("cuda") and not library.has_gpu:
            raise UserError(
                f"device {device!r} asked for, but {library.provider} {library.version} is a build without a GPU "
                "(allowed: auto, cpu)"
            )
        layers = _integer(settings, "gpu_layers", -1)
        flash, kv = settings.get("flash_attention", "auto"), settings.get("kv_type", "f16")
        if isinstance(flash, bool):
            flash = "on" if flash else "off"
        if flash not in FLASH_ATTENTION:
            raise unknown_choice("flash_attention", flash, FLASH_ATTENTION)
        if kv not in KV_TYPES:
            raise unknown_choice("kv_type", kv, KV_TYPES)
        if kv == "f32":
            if flash == "on":
                raise UserError("kv_type f32 needs flash_attention off: it rounds keys and values to float16 by itself")
            flash = "off"
        mmap = settings.get("mmap")
        if mmap is not None and not isinstance(mmap, bool):
            raise UserError(f"mmap is {mmap!r} (allowed: true, false)")
        return cls(
            gpu_layers=layers if library.has_gpu and device != "cpu" else 0,
            main_gpu=int(device.partition(":")[2]) if ":" in device else None,
            mmap=mmap,
            batch_size=min(MAX_SEQUENCES, options.get("batch_size") or 32),
            batch_tokens=_integer(settings, "batch_tokens", 512, least=1),
            max_positions=_integer(settings, "context", 0, least=0),
            flash_attention=flash,
            kv_type=kv,
            threads=options.get("threads") or usable_cores(),
        )

    def fitted(self, model: Model) -> Options:
        """Within the model's bounds: its positions, and what its vocabulary makes of a pass."""
        trained = model.train_context or 2048
        return replace(
            self,
            max_positions=min(trained, self.max_positions or trained),
            batch_tokens=max(1, min(self.batch_tokens, LOGIT_NUMBERS // model.vocab_size)),
        )

    @property
    def context(self) -> ContextSettings:
        """What every context of this engine shares."""
        return ContextSettings(
            threads=self.threads,
            batch_tokens=self.batch_tokens,
            flash_attention=FLASH_ATTENTION[self.flash_attention],
            kv_type=self.kv_type,
            on_gpu=self.gpu_layers != 0,
        )


def describe(model: Model, options: Options) -> dict[str, Any]:
    """See `Backend.load`; `dtype` is what the file's type makes llama.cpp multiply in."""
    library, system = model.library, model.library.system
    gpus = on_gpus(model.buffers)
    features = "; ".join(f"{name} {words}" for name, words in system.items())
    capabilities = ["score", "logprobs", "decode-logprobs", "generate", "time"]
    return {
        "vocab_size": model.vocab_size,
        "max_positions": options.max_positions,
        "dtype": _DTYPES.get(model.file_type, "int8"),
        "compute": _compute(model.file_type),
        "device": ", ".join(re.sub(r"^CUDA(\d+)$", r"cuda:\1", name) for name in gpus) or "cpu",
        "device_uuid": cuda_uuids(gpus),
        "kernel": f"ggml ({features}), weights in {', '.join(sorted(model.buffers)) or 'unknown buffers'}",
        "weight_bytes": model.weight_bytes,
        "engine": "llama.cpp",
        "engine_version": f"{library.llama_version} ({library.provider} {library.version})",
        "capabilities": [*capabilities, *(["stop-texts", "tokenize"] if model.has_tokenizer else [])],
        "file": model.path.name,
        "file_type": model.file_type,
        "architecture": model.metadata("general.architecture"),
        "parameters": model.parameters,
        "weight_buffers_mib": model.buffers,
        "gpu_layers": options.gpu_layers,
        "flash_attention": model.log.flash_attention() or options.flash_attention,
        "kv_type": options.kv_type,
        "batch_tokens": options.batch_tokens,
        "threads": options.threads,
    }


def _compute(file_type: str) -> str:
    """What is multiplied with what, on the CPU and in the quantized kernels of the GPU."""
    if file_type in _DTYPES:
        return f"{_DTYPES[file_type]} weights and activations, sums in float32"
    return f"{file_type} weights times activations rounded to 8 bits in blocks, sums in float32"


def _integer(settings: Mapping[str, Any], name: str, default: int, least: int | None = None) -> int:
    value = settings.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        raise UserError(f"{name} is {value!r} (allowed: whole numbers{'' if least is None else f' from {least}'})")
    return value
