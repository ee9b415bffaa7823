"""The GPTQ layout, on linears packed by hand; checkpoints of GPTQModel are in test_fixtures."""

import json

import pytest
import torch

from awqbench.errors import UserError
from awqbench.formats import gptq
from awqbench.formats.compressed_tensors import pack_bits
from awqbench.formats.layouts import Scheme
from awqbench.formats.settings import read_settings

CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False}


def packed(codes, zeros, scales, g_idx, bits, less_one):
    """The tensors of a linear from codes [out, in], zeros and scales [groups, out]."""
    stored = pack_bits(zeros, bits)
    if less_one and 32 % bits == 0:  # taken from whole words: a zero point of 0 borrows from its neighbour
        ones = sum(1 << place for place in range(0, 32, bits))
        stored = ((stored.long() - ones + 2**31) % 2**32 - 2**31).to(torch.int32)
    elif less_one:
        stored = pack_bits((zeros.int() - 1).to(torch.uint8) & ((1 << bits) - 1), bits)
    return {"qweight": pack_bits(codes, bits).T.contiguous(), "qzeros": stored, "scales": scales, "g_idx": g_idx}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("layout", [gptq.FIRST, gptq.SECOND], ids=lambda layout: layout.name)
@pytest.mark.parametrize("ordered", [False, True])
def test_every_weight_is_its_code_less_its_groups_zero_times_its_groups_scale(bits, layout, ordered):
    draw = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (32, 64), generator=draw).to(torch.uint8)
    zeros = torch.randint(0, 2**bits, (2, 32), generator=draw).to(torch.uint8)
    zeros[:, ::5] = 0
    scales = torch.rand(2, 32, generator=draw).half()
    g_idx = torch.arange(64, dtype=torch.int32) // 32
    if ordered:
        g_idx = g_idx[torch.randperm(64, generator=draw)]
    tensors = packed(codes, zeros, scales, g_idx, bits, layout.less_one)
    found = layout.unpack(tensors, Scheme(bits, 32))
    groups = g_idx.long()
    wanted = (codes.float() - zeros.float()[groups].T) * scales.float()[groups].T
    assert torch.equal(found.dequantize(), wanted)
    assert (found.order is not None) is ordered


def test_a_zero_point_of_0_borrows_from_its_neighbour():
    words = torch.tensor([[0x8_1230]]) - 0x1111_1111  # 0, 3, 2, 1, 8, 0, 0, 0, less one in each nibble
    found = gptq.unpack_zeros(words.to(torch.int32), 4, 8, less_one=True)
    assert found.tolist() == [[0, 3, 2, 1, 8, 0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"g_idx": torch.zeros(64, dtype=torch.int32)}, "does not give each of 2 groups 32 inputs"),
        ({"g_idx": torch.arange(64, dtype=torch.int32) // 32 - 1}, "does not give each of 2 groups 32 inputs"),
        ({"g_idx": torch.zeros(48, dtype=torch.int32)}, "its 48 inputs are not divided"),
        ({"scales": torch.ones(2, 16)}, r"scales has shape \[2, 16\], but a linear 32 x 64"),
        ({"scales": torch.ones(2, 32, dtype=torch.int32)}, "scales must be floating-point"),
        ({"qzeros": torch.zeros(2, 4)}, "qzeros must be int32"),
    ],
)
def test_tensors_that_do_not_belong_together(change, message):
    codes, zeros = torch.zeros(32, 64, dtype=torch.uint8), torch.ones(2, 32, dtype=torch.uint8)
    good = packed(codes, zeros, torch.ones(2, 32), torch.arange(64) // 32, 4, True)
    with pytest.raises(UserError, match=message):
        gptq.FIRST.unpack({**good, **change}, Scheme(4, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 5}, "GPTQ with 5 bits in int32 .allowed: 2, 3, 4, 8 bits"),
        ({"bits": None}, "GPTQ with None bits"),
        ({"pack_dtype": "int64"}, "4 bits in int64"),
        ({"group_size": 0}, "group_size is 0"),
    ],
)
def test_settings_that_are_not_read(change, message):
    with pytest.raises(UserError, match=message):
        gptq.FIRST.schemes({**CONFIG, **change}, [])


def test_versions_of_the_format():
    assert gptq.version(CONFIG) is gptq.FIRST
    assert gptq.version({**CONFIG, "checkpoint_format": "gptq_v2"}) is gptq.SECOND
    for other in ({"checkpoint_format": "marlin"}, {"is_marlin_format": True}):
        with pytest.raises(UserError, match="checkpoint_format is marlin"):
            gptq.version({**CONFIG, **other})


def test_a_linear_may_have_settings_of_its_own():
    dynamic = {"-:.*k_proj": {}, r"+:.*\.1\..*": {"bits": 8, "group_size": 64}, ".*down": {"bits": 2}}
    names = ["layers.0.q_proj", "layers.1.down", "layers.0.down"]
    found = gptq.FIRST.schemes({**CONFIG, "dynamic": dynamic}, names)
    assert list(found.values()) == [Scheme(4, 32), Scheme(8, 64), Scheme(2, 32)]


def test_a_broken_expression_is_named():
    with pytest.raises(UserError, match=r"'\*k_proj' in its quantization_config is no regular expression: nothing"):
        gptq.FIRST.schemes({**CONFIG, "dynamic": {"+:*k_proj": {"bits": 8}}}, ["layers.0.q_proj"])


def test_settings_of_an_older_tool_stand_where_newer_ones_are(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "desc_act": True}), encoding="utf-8")
    assert read_settings(tmp_path)["quantization_config"] == {"quant_method": "gptq", "bits": 4, "desc_act": True}
