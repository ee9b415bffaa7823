"""From a spec to vLLM's arguments, and what is refused before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awqbench.backends.settings import flag, table, whole
from awqbench.backends.tokenizer_files import has_tokenizer
from awqbench.backends.transformers_config import positions, quantization_of
from awqbench.cores import usable_cores
from awqbench.errors import NotApplicable, UserError

FOUR_BIT_DTYPES = ("bfloat16", "float16")
# Tokens of a sequence where the spec asks for none: what suites use, and a cache that fits beside most models.
POSITIONS = 4096
# GiB of cache on a CPU, where vLLM's own default is a share of all the machine's memory.
CPU_CACHE_GIB = 2


def prepare_process(options: Mapping[str, Any]) -> None:
    """Environment variables that vLLM and torch read when they are imported."""
    settings = options.get("settings") or {}
    threads = options.get("threads") or os.environ.get("OMP_NUM_THREADS") or usable_cores()
    os.environ.update(
        OMP_NUM_THREADS=str(threads),  # vLLM goes down to one thread where this is not said
        VLLM_ENABLE_V1_MULTIPROCESSING="0",  # the engine in this process: steps can be timed, nothing is left behind
        VLLM_ALLOW_LONG_MAX_MODEL_LEN="1",  # see engine_arguments
        VLLM_NO_USAGE_STATS="1",
        VLLM_CPU_KVCACHE_SPACE=str(whole(settings, "kv_cache_space", CPU_CACHE_GIB)),
    )
    device = str(options.get("device", "auto"))
    if device.startswith("cuda:"):
        _see_only(device, whole(settings, "tensor_parallel", 1) or 1)


def _see_only(device: str, tensor_parallel: int) -> None:
    """vLLM takes the first GPUs it sees."""
    if tensor_parallel > 1:
        raise UserError(f"device {device!r} with tensor_parallel {tensor_parallel} (allowed: cuda)")
    number = device.removeprefix("cuda:")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else None
    if not number.isdigit() or (names is not None and int(number) >= len(names)):
        raise UserError(f"unknown device {device!r} (allowed: auto, cpu, cuda, cuda:N)")
    os.environ["CUDA_VISIBLE_DEVICES"] = names[int(number)] if names else number


def engine_arguments(options: Mapping[str, Any], *, on_cpu: bool) -> dict[str, Any]:
    """Arguments of `vllm.LLM`; the option `engine_args` has the last word."""
    device = str(options.get("device", "auto"))
    if device != "auto" and (device == "cpu") != on_cpu:
        built = "cpu" if on_cpu else "cuda"
        raise UserError(f"device {device!r} asked for, but this vLLM is built for {built} (allowed: auto, {built})")
    settings = options.get("settings") or {}
    asked = whole(settings, "max_model_len", None, minimum=2)
    # One more than the model's own positions: vLLM always generates a token, which is never fed back here.
    length = (asked or min(positions(options["weights"]) or POSITIONS, POSITIONS)) + 1
    arguments: dict[str, Any] = {
        "model": options["weights"],
        "dtype": options["dtype"],
        "trust_remote_code": options.get("trust_remote_code", False),
        "tensor_parallel_size": whole(settings, "tensor_parallel", 1),
        "max_model_len": length,
        # Compiling takes minutes, and on a CPU gains little.
        "enforce_eager": flag(settings, "enforce_eager", on_cpu),
        "enable_prefix_caching": False,
        "max_logprobs": -1,
        "logprobs_mode": "raw_logprobs",
        "generation_config": "vllm",
        "disable_log_stats": True,
        "seed": 0,
    }
    if options.get("model_dir") and not has_tokenizer(options["weights"]):
        arguments["tokenizer"] = options["model_dir"]
    if "gpu_memory" in settings:
        arguments["gpu_memory_utilization"] = _share(settings["gpu_memory"])
    if options.get("batch_size"):
        arguments["max_num_seqs"] = options["batch_size"]
    if settings.get("quantization") and not options.get("unquantized"):
        arguments["quantization"] = str(settings["quantization"])
    return {**arguments, **table(settings, "engine_args")}


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise UserError(f"option gpu_memory is {value!r} (allowed: a share of the GPU's memory, above 0 to 1)")
    return float(value)


def check_folder(options: Mapping[str, Any], *, on_cpu: bool, cpuinfo: str = "/proc/cpuinfo") -> None:
    """Refuse 4-bit weights in a type that vLLM does not multiply them in, or on a CPU that its kernel does not run on.

    Imports vLLM for 4-bit weights on a CPU. Raises UserError and NotApplicable.
    """
    method = four_bit_method(options["weights"])
    if method is None:
        return
    if options["dtype"] not in FOUR_BIT_DTYPES:
        raise UserError(
            f"dtype {options['dtype']!r} with {method} weights in vLLM (allowed: {', '.join(FOUR_BIT_DTYPES)}; set it "
            "in the backend's own table)"
        )
    if on_cpu and (lacking := lacks_cpu_kernel(cpuinfo)):
        raise NotApplicable(f"vLLM's 4-bit weights on a CPU need AVX-512 (_C.cpu_gemm_wna16): {lacking}")


def four_bit_method(folder: str) -> str | None:
    """The method of a folder's 4-bit integer weights; None for any other weights."""
    found = quantization_of(folder)
    method = found.get("quant_method")
    if method in {"awq", "gptq"}:
        return str(method)
    groups = (found.get("config_groups") or {}).values()
    packed = method == "compressed-tensors" and "pack" in str(found.get("format"))
    return str(method) if packed and any((g.get("weights") or {}).get("num_bits") == 4 for g in groups) else None


def lacks_cpu_kernel(cpuinfo: str = "/proc/cpuinfo") -> str | None:
    """Why this CPU build of vLLM has no 4-bit product here; None where it has one. Imports vLLM if the CPU would do."""
    flags = next((line for line in _lines(cpuinfo) if line.startswith("flags")), None)
    if flags is not None and "avx512f" not in flags.split():
        return "this CPU does not have it"
    import torch
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    return None if hasattr(torch.ops._C, "cpu_gemm_wna16") else "this build of vLLM does not hold the kernel"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
