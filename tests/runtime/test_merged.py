"""Which linears multiply together is seen in a forward pass, and changes no result."""

import copy

import pytest
import torch
from runtime_steps import ids

from awqbench.backends.torch_engine import weight_bytes
from awqbench.ops import QuantizedLinear
from awqbench.runtime.merged import merge_linears, part, reading_together

TOGETHER = {
    "llama": [("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")],
    "qwen3": [("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")],
    "phi3": [],  # fused already
    "gpt-neox": [],
    "cohere": [("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")],  # attention and mlp read one norm
}


@pytest.mark.parametrize("family", TOGETHER)
@torch.no_grad()
def test_linears_that_read_the_same_tensor_are_found_and_change_nothing(family, make_model):
    model = make_model(family, kernel="cuda")
    names = {id(module): name for name, module in model.named_modules()}
    before, bytes_before = model(ids(2, 7)).logits, weight_bytes(model)
    packed = {n: m.to_quantized() for n, m in model.named_modules() if isinstance(m, QuantizedLinear)}
    found = [tuple(names[id(m)].rpartition(".")[2] for m in group) for group in reading_together(model)]
    assert found == TOGETHER[family] * 2
    assert len(merge_linears(model)) == len(found)
    torch.testing.assert_close(model(ids(2, 7)).logits, before, rtol=1e-4, atol=1e-4)
    assert weight_bytes(model) == bytes_before
    for name, quantized in packed.items():
        again = model.get_submodule(name).to_quantized()
        assert all(torch.equal(getattr(again, key), getattr(quantized, key)) for key in ("codes", "scales", "zeros"))
    part(model)
    torch.testing.assert_close(model(ids(2, 7)).logits, before, rtol=0, atol=0)


@torch.no_grad()
def test_only_schemes_that_agree_are_merged(make_model):
    model = make_model("llama", kernel="cuda")
    other = make_model("llama", group=64, kernel="cuda")
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    attention.k_proj = other.model.layers[0].self_attn.k_proj
    mlp.up_proj = torch.nn.Linear(64, 96, bias=False)
    plain = copy.deepcopy(model)
    first, *rest = merge_linears(model)
    assert first is attention.q_proj.shared is attention.v_proj.shared
    assert attention.k_proj.shared is mlp.gate_proj.shared is None
    assert len(rest) == 2  # the second layer's
    torch.testing.assert_close(model(ids(1, 5)).logits, plain(ids(1, 5)).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_is_called_more_than_once_or_not_packed_for_it_stays_alone(make_model):
    model = make_model("llama", kernel="cuda")
    model.model.layers[1].self_attn = model.model.layers[0].self_attn
    assert [len(group) for group in reading_together(model)] == [2, 2]
    assert merge_linears(make_model("llama", kernel="dequantize")) == []
