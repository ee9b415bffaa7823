"""What the vLLM backend decides before vLLM is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.backends.vllm.arrays import PromptArrays, by_token, joined
from awqbench.backends.vllm.backend import reason
from awqbench.backends.vllm.model import inspect
from awqbench.backends.vllm.options import check_folder, engine_arguments, four_bit_method, prepare_process
from awqbench.errors import NotApplicable, UserError

AVX2 = "flags\t\t: fpu sse2 avx avx2 fma\n"


def options(folder: Path, **more: Any) -> dict[str, Any]:
    return {"weights": str(folder), "dtype": "bfloat16", "device": "auto", **more}


def test_a_cpu_without_avx512_is_found_before_loading(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(AVX2)
    for layout in ("awq", "compressed-tensors", "gptq"):
        with pytest.raises(NotApplicable, match=r"need AVX-512 \(_C.cpu_gemm_wna16\): this CPU does not have it"):
            check_folder(options(checkpoint(layout)), on_cpu=True, cpuinfo=str(cpuinfo))
        check_folder(options(checkpoint(layout)), on_cpu=False, cpuinfo=str(cpuinfo))


def test_whole_weights_need_nothing(small_llama: Path, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(AVX2)
    check_folder(options(small_llama, dtype="float32"), on_cpu=True, cpuinfo=str(cpuinfo))
    assert four_bit_method(str(small_llama)) is None


def test_four_bits_are_not_multiplied_in_float32(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=r"dtype 'float32' with awq weights in vLLM \(allowed: bfloat16, float16"):
        check_folder(options(checkpoint("awq"), dtype="float32"), on_cpu=False)


def test_arguments(small_llama: Path) -> None:
    settings = {
        "tensor_parallel": 2, "gpu_memory": 0.5, "max_model_len": 1024, "enforce_eager": True, "quantization": "awq",
        "engine_args": {"swap_space": 1, "seed": 3},
    }  # fmt: skip
    made = engine_arguments(options(small_llama, batch_size=4, settings=settings), on_cpu=False)
    assert made["tensor_parallel_size"] == 2
    assert made["gpu_memory_utilization"] == 0.5
    assert made["max_model_len"] == 1025  # the token that vLLM always generates is not fed back
    assert made["enforce_eager"] is True
    assert made["quantization"] == "awq"
    assert made["max_num_seqs"] == 4
    assert made["swap_space"] == 1
    assert made["seed"] == 3
    assert made["enable_prefix_caching"] is False
    assert made["logprobs_mode"] == "raw_logprobs"
    whole = engine_arguments(options(small_llama, settings=settings, unquantized=True), on_cpu=False)
    assert "quantization" not in whole
    assert engine_arguments(options(small_llama), on_cpu=True)["max_model_len"] == 2049
    assert engine_arguments(options(small_llama), on_cpu=True)["enforce_eager"] is True


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model", "vocab.json", "qwen.tiktoken"])
def test_a_folder_without_a_tokenizer_has_the_models_own(tmp_path: Path, file: str) -> None:
    """vLLM loads one before all else, and ended there."""
    (tmp_path / "config.json").write_text("{}")
    made = engine_arguments(options(tmp_path, model_dir="/the/model"), on_cpu=False)
    assert made["tokenizer"] == "/the/model"
    (tmp_path / file).write_text("{}")
    assert "tokenizer" not in engine_arguments(options(tmp_path, model_dir="/the/model"), on_cpu=False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tensor_parallel": 0}, r"option tensor_parallel is 0 \(allowed: a whole number, 1 or more\)"),
        ({"gpu_memory": 2}, r"option gpu_memory is 2 \(allowed: a share"),
        ({"max_model_len": "all"}, r"option max_model_len is 'all' \(allowed: a whole number, 2 or more\)"),
        ({"enforce_eager": 1}, r"option enforce_eager is 1 \(allowed: true, false\)"),
        ({"engine_args": 1}, r"option engine_args is 1 \(allowed: a table\)"),
    ],
)
def test_wrong_options_are_named(small_llama: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        engine_arguments(options(small_llama, settings=settings), on_cpu=False)


def test_the_device_must_be_what_vllm_was_built_for(small_llama: Path) -> None:
    with pytest.raises(UserError, match=r"device 'cuda' asked for, but this vLLM is built for cpu \(allowed: auto"):
        engine_arguments(options(small_llama, device="cuda"), on_cpu=True)


def test_one_gpu_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
                 "VLLM_NO_USAGE_STATS", "VLLM_CPU_KVCACHE_SPACE"):  # fmt: skip
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    prepare_process({"device": "cuda:1", "threads": 3})
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    assert os.environ["OMP_NUM_THREADS"] == "3"
    with pytest.raises(UserError, match="unknown device 'cuda:5'"):
        prepare_process({"device": "cuda:5"})
    with pytest.raises(UserError, match=r"device 'cuda:0' with tensor_parallel 2 \(allowed: cuda\)"):
        prepare_process({"device": "cuda:0", "settings": {"tensor_parallel": 2}})


def test_arrays_come_back_in_the_order_of_tokens() -> None:
    # Column 0 is the text's own token; the rest is sorted by likelihood.
    part = PromptArrays(np.array([[2, 1, 2, 0]], np.int32), np.log(np.array([[0.3, 0.6, 0.3, 0.1]], np.float32)))
    both = joined([None, part, part])
    assert both.ids.shape == (2, 4)
    rows = by_token(both, 1, 2, 3)
    assert np.exp(rows) == pytest.approx(np.array([[0.1, 0.6, 0.3]]), abs=1e-6)
    assert by_token(both, 0, 2, 4)[:, 3].tolist() == [-np.inf, -np.inf]


def test_kernels_are_counted_by_what_multiplies() -> None:
    from torch import nn

    class MarlinLinearKernel:
        pass

    class AutoAWQMarlinLinearMethod:
        def __init__(self, kernel: object = None) -> None:
            self.kernel = kernel

    class UnquantizedEmbeddingMethod:
        pass

    model = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
    model[0].quant_method = model[1].quant_method = AutoAWQMarlinLinearMethod(MarlinLinearKernel())
    model[2].quant_method = AutoAWQMarlinLinearMethod()
    model[3].quant_method = UnquantizedEmbeddingMethod()
    found = inspect(model)
    assert found["kernel"] == "AutoAWQMarlinLinearMethod x1, MarlinLinearKernel x2"
    assert found["weight_bytes"] == 4 * (16 + 4) * 4


def test_the_line_that_says_what_is_wrong() -> None:
    wrapped = "1 validation error for ModelConfig\n  Value error, torch.float32 is not supported [type=value_error, x]"
    assert reason(ValueError(wrapped)) == "torch.float32 is not supported"
    assert reason(ValueError()) == "ValueError"
