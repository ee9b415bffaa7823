"""Real engines on one small model and its 4-bit checkpoints, each in a worker process of its own interpreter."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Opened = Callable[..., AbstractContextManager[Any]]
# Where a user's environments are; the tests' own cache is a temporary one.
_USUAL = Path(os.environ.get("AWQBENCH_CACHE", "~/.cache/awqbench")).expanduser() / "environments"
ENVIRONMENTS = os.environ.get("AWQBENCH_ENVIRONMENTS", str(_USUAL))


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random byte-level Llama as wide as engines' kernels want it: 2 layers, hidden 256, ffn 512."""
    from awqbench.sources.tiny import make_tiny

    folder = tmp_path_factory.mktemp("small") / "model"
    make_tiny(folder, hidden_size=256, intermediate_size=512, num_hidden_layers=2)
    return folder


@pytest.fixture(scope="session")
def checkpoint(small_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The small model rounded to 4 bits, written as `awq`, `compressed-tensors` or `gptq`; the same integers."""
    from awqbench.quantization.pipeline import quantize_model
    from awqbench.quantization.recipe import Recipe

    place = tmp_path_factory.mktemp("checkpoints")

    @cache
    def make(layout: str) -> Path:
        out = place / layout
        if layout == "gptq":
            to_gptq(make("awq"), out)
        else:
            written = {"awq": "autoawq"}.get(layout, layout)
            quantize_model(small_llama, out, Recipe(method="rtn", group_size=64), layout=written)
        return out

    return make


def to_gptq(awq: Path, out: Path) -> None:
    """The same integers in GPTQ's second layout: eight codes along the input in each int32, zero points as they are."""
    import torch
    from safetensors.torch import load_file, save_file

    from awqbench.formats.load import read_quantized

    def packed(codes: torch.Tensor) -> torch.Tensor:  # [8 n, m] -> int32 [n, m]
        words = codes.long().reshape(-1, 8, codes.shape[1]) << (4 * torch.arange(8))[:, None]
        return words.sum(1).to(torch.int64).where(words.sum(1) < 2**31, words.sum(1) - 2**32).int().contiguous()

    shutil.copytree(awq, out)
    tensors = load_file(awq / "model.safetensors")
    for name, found in read_quantized(awq).items():
        inputs = found.codes.shape[1]
        tensors[f"{name}.qweight"] = packed(found.codes.T)
        tensors[f"{name}.qzeros"] = packed(found.zeros).T.contiguous()
        tensors[f"{name}.scales"] = found.scales.T.contiguous()
        tensors[f"{name}.g_idx"] = (torch.arange(inputs) // found.group_size).int()
    # Zero points are packed along the output, so their rows are words of eight outputs.
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "gptq", "checkpoint_format": "gptq_v2", "bits": 4, "group_size": 64, "sym": False,
        "desc_act": False, "lm_head": False,
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config))


@pytest.fixture
def opened(small_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Opens a worker of a kind on a folder (the model itself by default); skips where the environment is missing."""
    from awqbench.backends.registry import kind
    from awqbench.environments import resolve
    from awqbench.errors import BackendUnavailable
    from awqbench.worker.client import Worker

    monkeypatch.setenv("AWQBENCH_ENVIRONMENTS", ENVIRONMENTS)

    @contextmanager
    def open_worker(name: str, folder: Path | None = None, **options: Any) -> Iterator[Any]:
        try:
            python = resolve(kind(name)).path
        except BackendUnavailable as missing:
            pytest.skip(str(missing))
        asked = {
            "model_dir": str(small_llama), "weights": str(folder or small_llama), "unquantized": folder is None,
            "dtype": "float32", "device": "cpu", "threads": 1, "batch_size": None, "runtime": "auto",
            "trust_remote_code": False, "settings": {}, **options,
        }  # fmt: skip
        with Worker(name, asked, tmp_path / "log.txt", python=python) as worker:
            yield worker

    return open_worker


IDS = np.random.default_rng(0).integers(3, 259, 64).tolist()


@pytest.fixture(scope="session")
def expected(small_llama: Path) -> Callable[[Path | None], np.ndarray]:
    """Log-probabilities [63, vocabulary] of one text in float32: the model's, or with a checkpoint's weights in it."""
    from awqbench.backends.reference import ReferenceBackend
    from awqbench.formats.load import read_quantized

    @cache
    def compute(folder: Path | None) -> np.ndarray:
        backend = ReferenceBackend()
        backend.load({"dtype": "float32", "device": "cpu", "threads": None, "weights": str(small_llama)})
        for name, packed in read_quantized(folder).items() if folder else ():
            backend.model.get_submodule(name).weight.copy_(packed.dequantize())
        return np.concatenate(list(backend.logprobs(IDS, 1, "prefill")))

    return compute


@pytest.fixture(scope="session")
def agrees() -> Callable[..., None]:
    """Asserts that a worker's engine means by every operation what the protocol says, and computes what is expected."""

    def check(worker: Any, right: np.ndarray, max_kl: float) -> None:
        targets = np.asarray(IDS[1:])
        whole = np.concatenate(list(worker.logprobs(IDS, 1, "prefill")))
        assert whole.shape == right.shape
        assert np.exp(whole.astype(np.float64)).sum(1) == pytest.approx(1, abs=1e-3)
        kl = (np.exp(right) * (right - whole)).sum(1)
        assert -1e-6 < kl.mean() < max_kl
        own = whole[np.arange(len(targets)), targets]
        # Batched with others, sequences of another length; whole, from their middle, and from their end.
        scored = worker.score([IDS, IDS[:40], IDS[:10]], [1, 20, 10])
        # 16-bit sums differ with the shape of the batch.
        assert np.abs(scored[0].logprobs - own).max() < 0.1
        assert np.abs(scored[1].logprobs - own[19:39]).max() < 0.1
        assert (scored[0].argmax == whole.argmax(1)).mean() > 0.9
        assert len(scored[2].logprobs) == 0
        middle = np.concatenate(list(worker.logprobs(IDS, 30, "prefill")))
        assert np.abs(middle - whole[29:]).max() < 0.1
        if worker.offers("decode-logprobs"):
            stepped = np.concatenate(list(worker.logprobs(IDS, 56, "decode")))
            assert stepped.shape == (8, right.shape[1])
            assert np.abs(stepped - whole[55:]).mean() < 0.1
        if worker.offers("topk-logprobs"):
            (top,) = worker.topk_logprobs(IDS, 30, 5)
            assert top.ids.shape == top.logprobs.shape == (34, 5)
            assert np.take_along_axis(middle, top.ids, 1) == pytest.approx(top.logprobs, abs=0.1)
        assert [len(answer) for answer in worker.generate([IDS[:20], IDS[5:15]], 6, [])] == [6, 6]
        (long,) = worker.generate([IDS[:20]], 6, [])  # alone, as below: a tie in 16 bits falls otherwise in a batch
        assert worker.generate([IDS[:20]], 6, [long[3]]) == [long[: long.index(long[3])]]
        if worker.offers("stop-texts"):
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(worker.options["model_dir"])
            decode = partial(tokenizer.decode, skip_special_tokens=True)
            for ending in (decode(long[at : at + 2]) for at in range(1, 4)):
                end = next((n for n in range(1, 7) if ending in decode(long[:n])), 6)
                if ending and "\ufffd" not in ending:
                    assert worker.generate([IDS[:20]], 6, [], [ending]) == [long[:end]]
        timing = worker.time([IDS[:16], IDS[16:32]], 5)
        assert len(timing.gaps_s) == 4
        assert timing.ttft_s > 0
        assert all(gap > 0 for gap in timing.gaps_s)
        assert worker.tokenize(["ab"], special=False) == [[67, 68]]
        assert worker.memory()["host_peak"] > 0
        worker.unload()

    return check
