"""`awqbench doctor`: what this machine and this install can do, and the command that mends what is missing.

Standard library at import, so that it runs where half of the dependencies are absent and can say so.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warn", "missing"]

# Distribution -> module, of what a whole run imports.
REQUIRED = {
    "accelerate": "accelerate", "altair": "altair", "datasets": "datasets", "fairlearn": "fairlearn", "gguf": "gguf",
    "jinja2": "jinja2", "lm-eval": "lm_eval", "numpy": "numpy", "nvidia-ml-py": "pynvml", "pandas": "pandas",
    "psutil": "psutil", "pyarrow": "pyarrow", "pydantic": "pydantic", "rich": "rich", "safetensors": "safetensors",
    "scipy": "scipy", "statsmodels": "statsmodels", "torch": "torch", "transformers": "transformers", "typer": "typer",
    "vl-convert-python": "vl_convert",
}  # fmt: skip
# The demo model in float32, its two quantized checkpoints and room for a run's scratch.
DISK_BYTES = 3 * 10**9


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `missing` stops something from working; `warn` is worth knowing; `hint` is what to do about it."""

    name: str
    status: Status
    message: str
    hint: str = ""


def diagnose() -> list[Check]:
    """All checks, in the order in which a person would mend them. Never raises: a check that breaks is a finding."""
    found: list[Check] = []
    for probe in (
        _python,
        _packages,
        _torch,
        _compiler,
        _gpu,
        _cuda_kernels,
        _backends,
        _demo_model,
        _demo_text,
        _hub,
        _data,
        _content,
        _environments,
        _disk,
    ):
        try:
            found.extend(probe())
        except Exception as error:
            found.append(Check(probe.__name__.strip("_"), "missing", f"{type(error).__name__}: {error}"))
    return found


def _python() -> Iterator[Check]:
    good = sys.version_info >= (3, 11)
    yield Check(
        "python", "ok" if good else "missing", platform.python_version(), "" if good else "use Python 3.11 or newer"
    )


def _packages() -> Iterator[Check]:
    absent = [name for name, module in REQUIRED.items() if importlib.util.find_spec(module) is None]
    if absent:
        yield Check("packages", "missing", f"not installed: {', '.join(absent)}", f"pip install {' '.join(absent)}")
    else:
        yield Check("packages", "ok", f"all {len(REQUIRED)} installed")


def _torch() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        yield Check("torch", "missing", "not installed", "pip install torch")
        return
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    yield Check("torch", "ok", f"{torch.__version__}, {build}, {torch.get_num_threads()} threads")


def _compiler() -> Iterator[Check]:
    # Those of ops/build.py, which needs torch to be imported.
    path = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
    if path:
        yield Check("c++ compiler", "ok", path)
    else:
        hint = "install g++ (Debian, Ubuntu: apt-get install g++)"
        yield Check("c++ compiler", "warn", "none: 4-bit layers run through torch alone, slower", hint)


def _gpu() -> Iterator[Check]:
    if importlib.util.find_spec("pynvml"):
        from awqbench.telemetry.gpu import NvmlGpus

        gpus = NvmlGpus()
        names = ", ".join(gpus.names)
        gpus.close()
        yield Check("gpu", "ok" if names else "warn", names or f"{gpus.note}; everything runs on the CPU")
    if importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            yield Check(
                "cuda", "ok", f"{torch.cuda.device_count()} device(s), compute {torch.cuda.get_device_capability()}"
            )
        else:
            yield Check("cuda", "warn", "torch sees no CUDA device")


def _cuda_kernels() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    from awqbench.errors import BackendUnavailable
    from awqbench.ops import cuda_build

    nvcc = cuda_build.nvcc()
    yield Check("nvcc", "ok" if nvcc else "warn", nvcc or "none: CUDA kernels cannot be built here")
    try:
        if os.environ.get(cuda_build.OVERRIDE):
            yield Check("cuda kernels", "ok", f"{cuda_build.OVERRIDE}: {cuda_build.library_path()}")
        elif nvcc:
            version = ".".join(map(str, cuda_build.version_of(nvcc)))
            yield Check("cuda kernels", "ok", f"compiled by {nvcc} {version} when first used on a GPU")
        elif torch.cuda.is_available():
            message = "no nvcc: 4-bit layers run through torch alone, far slower"
            yield Check("cuda kernels", "warn", message, cuda_build.HINT)
        else:
            yield Check("cuda kernels", "ok", "not needed: no GPU to run them on")
    except BackendUnavailable as error:
        yield Check("cuda kernels", "warn", str(error), f"build them: {cuda_build.BUILD}")


def _backends() -> Iterator[Check]:
    """Every backend kind, those of plugins too, and whether it can run here."""
    if importlib.util.find_spec("numpy") is None:
        return
    from awqbench.backends.registry import kinds
    from awqbench.environments import resolve
    from awqbench.errors import BackendUnavailable, UserError

    try:
        found = kinds()
    except UserError as error:
        yield Check("backends", "missing", str(error), "mend or uninstall the plugin: no spec can be read with it")
        return
    for kind in found.values():
        name = f"backend {kind.name}"
        summary = kind.summary if kind.target.startswith("awqbench.") else f"{kind.summary} (plugin {kind.target})"
        try:
            runs = resolve(kind, None)
        except BackendUnavailable as error:
            # Engines that are not installed stop nothing but their own cells.
            _, _, command = str(error).rpartition(": ")
            yield Check(name, "warn", f"{summary}: cannot run here. {error}", command)
        else:
            versions = ", ".join(f"{package} {version}" for package, version in runs.versions.items())
            yield Check(name, "ok", f"{summary}{f': {versions}' if versions else ''}")


def _demo_model() -> Iterator[Check]:
    from awqbench.errors import BackendUnavailable
    from awqbench.sources.demo import demo_gguf

    try:
        yield Check("demo model", "ok", str(demo_gguf()))
    except BackendUnavailable as error:
        yield Check(
            "demo model", "warn", "not installed: the default run needs it, others don't", str(error).split(": ", 1)[-1]
        )


def _demo_text() -> Iterator[Check]:
    if importlib.util.find_spec("gensim"):
        yield Check("demo text", "ok", f"gensim {metadata.version('gensim')}")
    else:
        yield Check(
            "demo text",
            "warn",
            "gensim is not installed: the default calibration text is missing",
            'pip install "awqbench[demo]"',
        )


def _hub() -> Iterator[Check]:
    from awqbench.sources.hub import hub_refusal

    refusal = hub_refusal()
    if refusal is None:
        yield Check("hugging face hub", "ok", "reachable")
    else:
        yield Check(
            "hugging face hub", "warn", f"not used: {refusal}", "models and texts come from folders and packages"
        )


def _data() -> Iterator[Check]:
    folder = os.environ.get("AWQBENCH_DATA")
    if not folder:
        yield Check("local data", "ok", "AWQBENCH_DATA is not set: only packaged texts and the hub are used")
    elif Path(folder).is_dir():
        yield Check("local data", "ok", folder)
    else:
        yield Check("local data", "missing", f"AWQBENCH_DATA names no folder: {folder}", "correct or unset it")


def _content() -> Iterator[Check]:
    from awqbench.resources import content

    for folder in ("kernels", "suites", "reports"):
        try:
            yield Check(f"content: {folder}", "ok", str(content(folder)))
        except FileNotFoundError as error:
            yield Check(f"content: {folder}", "missing", str(error), "reinstall awqbench")


def _environments() -> Iterator[Check]:
    from awqbench.environments import create_command, states

    groups: dict[str, list[tuple[str, str]]] = {"engines": [], "quantizers": []}
    for found in states():
        group = "engines" if found.definition.kinds else "quantizers"
        groups[group].append((found.definition.name, found.status))
    for group, members in groups.items():
        by_status: dict[str, list[str]] = {}
        for name, status in members:
            by_status.setdefault(status, []).append(name)
        broken = [*by_status.get("incomplete", []), *by_status.get("outdated", [])]
        message = "; ".join(f"{status}: {', '.join(names)}" for status, names in by_status.items())
        hint = "; ".join(map(create_command, broken))
        yield Check(f"environments of {group}", "warn" if broken else "ok", message, hint)


def _disk() -> Iterator[Check]:
    from awqbench.cache import cache_dir

    folder = cache_dir(".")
    free = shutil.disk_usage(folder).free
    message = f"{free / 1e9:.1f} GB free at {folder}"
    enough = free >= DISK_BYTES
    hint = f"free {DISK_BYTES / 1e9:.0f} GB, or point AWQBENCH_CACHE elsewhere"
    yield Check("disk", "ok" if enough else "warn", message, "" if enough else hint)
