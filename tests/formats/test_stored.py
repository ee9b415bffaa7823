import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from awqbench.formats.layouts import Scheme, layout
from awqbench.formats.shards import Shards
from awqbench.formats.stored import found_layout, stored_linears
from awqbench.quantization.rounding import quantize


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["autoawq", "compressed-tensors"]), bits=st.sampled_from([2, 3, 4, 8]),
    symmetric=st.booleans(), out=st.integers(1, 5), groups=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_headers_tell_what_was_packed(tmp_path_factory, name, bits, symmetric, out, groups, seed):
    if name == "autoawq" and bits == 8:
        return
    weight = torch.randn(8 * out, 32 * groups, generator=torch.Generator().manual_seed(seed))
    quantized = quantize(weight, bits, 32, symmetric=symmetric)
    folder = tmp_path_factory.mktemp("stored")
    packed = layout(name).pack(quantized, Scheme(bits, 32, symmetric))
    save_file({f"a.b.{suffix}": tensor for suffix, tensor in packed.items()}, folder / "model.safetensors")
    shards = Shards(folder)
    (found,) = stored_linears(shards, name, declared_bits=bits)
    held = 4 if name == "autoawq" else bits
    assert (found.name, found.shape, found.bits, found.groups) == ("a.b", tuple(weight.shape), held, groups)
    assert found.group_size == (32 if groups > 1 else -1)
    torch.testing.assert_close(found.scales(shards).flatten().sort()[0], quantized.scales.flatten().sort()[0])
    zeros = found.zeros(shards)
    if name == "compressed-tensors" and symmetric:
        assert zeros is None
    else:
        assert zeros.flatten().sort()[0].tolist() == quantized.zeros.flatten().sort()[0].tolist()


@pytest.mark.parametrize(("layout_name", "wanted"), [("gptq", 8), ("gptq-v2", 7)])
def test_gptq_stores_zero_points_less_one_until_its_second_format(tmp_path, layout_name, wanted):
    tensors = {
        "a.qweight": torch.zeros(8, 16, dtype=torch.int32), "a.scales": torch.ones(2, 16).half(),
        "a.qzeros": torch.full((2, 2), 0x77777777, dtype=torch.int32), "a.g_idx": torch.arange(64, dtype=torch.int32),
    }  # fmt: skip
    save_file(tensors, tmp_path / "model.safetensors")
    shards = Shards(tmp_path)
    (found,) = stored_linears(shards, layout_name)
    assert (found.shape, found.bits, found.groups) == ((16, 64), 4, 2)
    assert found.zeros(shards).unique().tolist() == [wanted]


def test_a_gptq_zero_point_of_0_borrows_from_its_neighbour(tmp_path):
    wanted = torch.tensor([0, 5, 0, 0, 15, 1, 8, 0], dtype=torch.int64)
    word = sum(int(zero) << 4 * place for place, zero in enumerate(wanted)) - 0x11111111
    word = (word + 2**31) % 2**32 - 2**31
    tensors = {
        "a.qweight": torch.zeros(4, 8, dtype=torch.int32),
        "a.qzeros": torch.tensor([[word]]).to(torch.int32),
        "a.scales": torch.ones(1, 8, dtype=torch.float16),
        "a.g_idx": torch.zeros(32, dtype=torch.int32),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    shards = Shards(tmp_path)
    (linear,) = stored_linears(shards, "gptq", declared_bits=4)
    assert linear.zeros(shards).flatten().tolist() == wanted.tolist()


def test_zero_points_that_are_not_packed(tmp_path):
    tensors = {
        "a.weight_packed": torch.zeros(8, 4, dtype=torch.int32), "a.weight_scale": torch.ones(8, 1),
        "a.weight_shape": torch.tensor([8, 32]), "a.weight_zero_point": torch.tensor([[-8]] * 8, dtype=torch.int8),
    }  # fmt: skip
    save_file(tensors, tmp_path / "model.safetensors")
    shards = Shards(tmp_path)
    (found,) = stored_linears(shards, "compressed-tensors")
    assert found.zeros(shards).unique().tolist() == [0]


def test_the_layout_by_config_and_by_names():
    entries = {"a.qweight": None, "a.g_idx": None}
    assert found_layout({}, {"a.weight": None}) is None
    assert found_layout({}, entries) == "gptq"
    assert found_layout({}, {"a.qweight": None}) == "autoawq"
    assert found_layout({}, {"a.weight_packed": None}) == "compressed-tensors"
    said = {"quant_method": "gptq", "checkpoint_format": "gptq_v2"}
    assert found_layout({"quantization_config": said}, entries) == "gptq-v2"
    assert found_layout({"quantization_config": {"quant_method": "fp8"}}, entries) == "fp8"
    for named in ({"version": "GEMM"}, {"format": "gemm"}, {}):
        assert found_layout({"quantization_config": {"quant_method": "awq", **named}}, entries) == "autoawq"


def test_the_layouts_of_autoawq_that_lie_otherwise_are_not_described_as_if_they_did_not(tmp_path):
    """GEMV: qweight [out, in / 8]. It was described as a linear of 64 outputs and 16 inputs."""
    save_file({"a.qweight": torch.zeros(16, 8, dtype=torch.int32)}, tmp_path / "model.safetensors")
    shards = Shards(tmp_path)
    layout_name = found_layout({"quantization_config": {"quant_method": "awq", "version": "gemv"}}, shards.entries)
    assert (layout_name, stored_linears(shards, layout_name)) == ("autoawq-gemv", [])
