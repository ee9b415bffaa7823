"""RMS norms become one operation only where they are RMS norms."""

import copy

import pytest
import torch

from awqbench.runtime.norms import fuse_norms, unfuse_norms

# Norms in two layers and after them. Gemma multiplies by 1 + w, Cohere's and GPT-NeoX's subtract the mean.
COUNTS = {"llama": 5, "qwen3": 9, "olmo2": 9, "gemma": 0, "cohere": 0, "gpt-neox": 0, "gpt2": 0}


@pytest.mark.parametrize("family", COUNTS)
@torch.no_grad()
def test_only_plain_rms_norms_are_fused_and_can_be_parted(family, make_model):
    model, tokens = make_model(family, kernel="dequantize"), torch.arange(3, 9)[None]
    before = model(tokens).logits
    assert fuse_norms(model) == COUNTS[family]
    assert fuse_norms(model) == 0  # they are already
    torch.testing.assert_close(model(tokens).logits, before, rtol=1e-4, atol=1e-4)
    unfuse_norms(model)
    assert torch.equal(model(tokens).logits, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_sixteen_bits_differ_by_roundings(dtype, make_model):
    norm = make_model("llama", dtype=dtype, kernel="dequantize").model.norm
    x = (3 * torch.randn(4, 7, 64)).to(dtype)
    wanted = norm(x).float()
    assert fuse_norms(norm) == 1
    torch.testing.assert_close(norm(x).float(), wanted, rtol=1.1 * torch.finfo(dtype).eps, atol=1e-6)
    assert norm(x).dtype is dtype


@torch.no_grad()
def test_a_copy_has_a_weight_of_its_own(make_model):
    norm = make_model("llama", kernel="dequantize").model.norm
    fuse_norms(norm)
    other = copy.deepcopy(norm)
    other.weight.mul_(2)
    x = torch.randn(1, 64)
    assert torch.equal(other(x), 2 * norm(x))


@torch.no_grad()
def test_a_norm_of_another_epsilon_or_with_more_to_it_stays(make_model):
    model = make_model("llama", kernel="dequantize")
    model.model.norm.register_forward_hook(lambda module, args, output: output * 1.01)
    lying = model.model.layers[0].input_layernorm
    forward = lying.forward
    lying.forward = lambda x: forward(x)
    model.model.layers[1].input_layernorm.register_buffer("more", torch.ones(1))
    assert fuse_norms(model) == 2
