"""Whole steps by the CUDA kernels' own source, on a GPU that is simulated."""

import copy
import importlib

import pytest
import torch
from runtime_steps import assert_close, decoded, ids

from awqbench.runtime import TransformersDecoding, fused, product
from awqbench.runtime.attach import static_runtime

CPU = torch.device("cpu")
HALF = 4e-3  # as test_fused.py has it


@pytest.fixture(autouse=True)
def launches(gpu, monkeypatch):
    """The step's operations on CPU tensors as on a device's; what was launched."""
    found = []
    for module, name in ((product, "fused_linear"), (fused, "attend")):
        on_cuda = importlib.import_module(f"awqbench.ops.{name}")._on_cuda

        def launch(*args, name=name, on_cuda=on_cuda, **options):
            found.append(name)
            return on_cuda(*args, **options)

        monkeypatch.setattr(module, name, launch)
    return found


@pytest.mark.parametrize(("family", "dtype"), [
    *((family, torch.float16) for family in ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")),
    ("gemma3", torch.bfloat16),
])  # fmt: skip
@torch.no_grad()
def test_the_models_own_logits(family, dtype, make_model, launches):
    """Three sequences of unlike lengths, beyond gemma3's window of 8; then others in the same slot."""
    model = make_model(family, kernel="cuda", dtype=dtype)
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU)
    assert runtime.name == "static, fused"
    layers, lengths = len(model.model.layers), [9, 4, 1]
    tolerance = HALF if dtype is torch.float16 else 8 * HALF
    for seed in range(2):
        tokens, padding = ids(3, 12, seed), torch.tensor([9 - length for length in lengths])
        decoding = runtime.begin(3, 12, True)
        found = [decoding.feed(tokens[:, :9], padding).clone()]
        launches.clear()
        found += [decoding.feed(tokens[:, at : at + 1]).clone() for at in range(9, 12)]
        assert launches == 3 * layers * ["fused_linear", "attend", "fused_linear", "fused_linear", "fused_linear"]
        for row, length in enumerate(lengths):
            alone = decoded(TransformersDecoding(plain, CPU), tokens[row : row + 1, 9 - length :], length)
            assert_close(torch.stack(found, 1)[row : row + 1], alone, tolerance)


@torch.no_grad()
def test_the_same_tokens_until_the_cache_is_full(make_model):
    model = make_model("llama", kernel="cuda", dtype=torch.float16)
    plain = copy.deepcopy(model)
    own, ours = TransformersDecoding(plain, CPU), static_runtime(model, CPU).begin(1, 128)
    tokens = ids(1, 121)
    for _ in range(128 - 120):
        first, second = ours.feed(tokens), own.feed(tokens)
        assert_close(first, second, HALF)
        tokens = second.argmax(-1, keepdim=True)
        assert torch.equal(first.argmax(-1, keepdim=True), tokens)
    with pytest.raises(IndexError, match="after 128"):
        ours.feed(tokens)


@torch.no_grad()
def test_linears_that_are_not_packed(make_model, launches):
    """One down projection and one output in 16 bits."""
    model = make_model("qwen2", kernel="cuda", dtype=torch.float16)
    first, second = model.model.layers
    for owner, name in ((first.mlp, "down_proj"), (second.self_attn, "o_proj")):
        packed = getattr(owner, name)
        dense = torch.nn.Linear(packed.in_features, packed.out_features, bias=False, dtype=torch.float16)
        dense.weight.copy_(packed.to_quantized().dequantize().half())
        setattr(owner, name, dense.requires_grad_(False))
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU)
    assert runtime.name == "static, fused"
    launches.clear()
    tokens = ids(2, 8)
    own = decoded(TransformersDecoding(plain, CPU), tokens, 5)
    assert_close(decoded(runtime.begin(2, 8), tokens, 5), own, HALF)
    assert launches.count("attend") == 3 * 2
    assert launches.count("fused_linear") == 3 * (2 * 4 - 2)
