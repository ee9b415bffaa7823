import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.formats import autoawq
from awqbench.formats.layouts import Scheme
from awqbench.quantization.tensor import QuantizedTensor


def tensor(codes, zeros, group_size, bits=4):
    groups = codes.shape[1] // group_size
    scales = torch.linspace(0.01, 0.5, codes.shape[0] * groups).view(codes.shape[0], groups).half()
    return QuantizedTensor(codes, scales, zeros, bits, group_size)


def pack(quantized):
    return autoawq.pack(quantized, Scheme(quantized.bits, quantized.group_size))


def test_nibble_order_of_a_hand_written_word():
    """Output column c holds code c + 1. Nibbles 0..7 hold columns 0 2 4 6 1 3 5 7, so codes 1 3 5 7 2 4 6 8."""
    codes = torch.arange(1, 9, dtype=torch.uint8)[:, None]
    packed = pack(tensor(codes, codes + 7, 1))
    assert packed["qweight"].tolist() == [[0x86427531 - 2**32]]
    # Zero points 8..15, stored as they are (not less one, as GPTQ does): nibbles 8 10 12 14 9 11 13 15.
    assert packed["qzeros"].tolist() == [[0xFDB9ECA8 - 2**32]]


def test_each_input_is_a_row_and_each_eight_outputs_a_word():
    codes = torch.zeros(16, 4, dtype=torch.uint8)
    codes[9, 2] = 5  # output 9 = word 1, column 1 = nibble 4
    packed = pack(tensor(codes, torch.zeros(16, 2, dtype=torch.uint8), 2))
    expected = torch.zeros(4, 2, dtype=torch.int32)
    expected[2, 1] = 5 << 16
    assert torch.equal(packed["qweight"], expected)
    assert packed["scales"].shape == (*packed["qzeros"].shape[:1], 16) == (2, 16)
    assert [packed[name].dtype for name in ("qweight", "qzeros", "scales")] == [torch.int32, torch.int32, torch.float16]


@given(
    eighths=st.integers(1, 6), groups=st.integers(1, 5), group=st.sampled_from([1, 3, 16, 32, 43, 64]),
    bits=st.sampled_from([2, 3, 4]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_round_trip_is_exact(eighths, groups, group, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (8 * eighths, groups * group), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 2**bits, (8 * eighths, groups), generator=generator, dtype=torch.uint8)
    before = tensor(codes, zeros, group, bits)
    after = autoawq.unpack(pack(before), Scheme(bits, group))
    assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in ("codes", "scales", "zeros"))
    assert (after.bits, after.group_size) == (bits, group)


def test_one_group_per_channel():
    codes = torch.zeros(8, 6, dtype=torch.uint8)
    before = tensor(codes, codes[:, :1].contiguous(), 6)
    after = autoawq.unpack(autoawq.pack(before, Scheme(4, -1)), Scheme(4, -1))
    assert after.group_size == 6
    assert torch.equal(after.scales, before.scales)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scales_of_other_types_are_read_as_they_are_and_written_only_if_they_stay_what_they_are(dtype):
    codes = torch.zeros(8, 4, dtype=torch.uint8)
    packed = pack(tensor(codes, codes[:, :2].contiguous(), 2))
    after = autoawq.unpack({**packed, "scales": packed["scales"].to(dtype)}, Scheme(4, 2))
    assert after.scales.dtype == dtype
    half = QuantizedTensor(after.codes, after.scales.bfloat16().to(dtype), after.zeros, 4, 2)
    assert torch.equal(pack(half)["scales"].to(dtype), half.scales.T)
    with pytest.raises(UserError, match="float16 scales"):
        pack(QuantizedTensor(after.codes, torch.full_like(after.scales, 2.0**-40), after.zeros, 4, 2))


def test_what_does_not_fit_is_refused():
    codes = torch.zeros(12, 4, dtype=torch.uint8)
    with pytest.raises(UserError, match="divisible by 8, got 12"):
        pack(tensor(codes, codes[:, :2], 2))
    codes = torch.zeros(8, 4, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"at most 4 bits, not 5.*compressed-tensors"):
        pack(tensor(codes, codes[:, :2], 2, bits=5))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scales", lambda t: t[:1], "scales has shape"),
        ("qzeros", lambda t: t.to(torch.int64), "qzeros must be int32"),
        ("scales", lambda t: t.int(), "scales must be floating-point"),
        ("qweight", lambda t: t[:3], "2 groups do not divide 3 inputs"),
    ],
)
def test_tensors_that_do_not_belong_together(name, change, message):
    codes = torch.zeros(8, 4, dtype=torch.uint8)
    packed = pack(tensor(codes, codes[:, :2].contiguous(), 2))
    with pytest.raises(UserError, match=message):
        autoawq.unpack({**packed, name: change(packed[name])}, Scheme(4, 2))


def test_groups_that_contradict_the_config_and_activation_order():
    codes = torch.zeros(8, 4, dtype=torch.uint8)
    packed = pack(tensor(codes, codes[:, :2].contiguous(), 2))
    with pytest.raises(UserError, match=r"2 groups of 2 weights, but config\.json says 4 bits in groups of 4"):
        autoawq.unpack(packed, Scheme(4, 4))
    with pytest.raises(UserError, match="activation order"):
        autoawq.unpack({**packed, "g_idx": torch.zeros(4)}, Scheme(4, 2))


def test_the_config_is_what_every_reader_expects_symmetric_or_not():
    for symmetric in (False, True):
        found = autoawq.config({"a": Scheme(3, 64, symmetric)}, ["lm_head"])
        assert found == {
            "quant_method": "awq", "version": "gemm", "bits": 4, "group_size": 64, "zero_point": True,
            "modules_to_not_convert": ["lm_head"],
        }  # fmt: skip
        assert autoawq.schemes(found, ["a", "b"]) == {"a": Scheme(4, 64), "b": Scheme(4, 64)}


def test_one_scheme_alone_and_no_wide_codes():
    with pytest.raises(UserError, match=r"one scheme, got 4 bits in groups of 32, asymmetric, 4 bits in groups of 64"):
        autoawq.config({"a": Scheme(4, 64), "b": Scheme(4, 32)}, [])
    with pytest.raises(UserError, match=r"not 8 .allowed: format compressed-tensors"):
        autoawq.config({"a": Scheme(8, 64)}, [])


@pytest.mark.parametrize(
    ("config", "scheme"),
    [
        ({"w_bit": 4, "q_group_size": 64, "zero_point": True, "version": "GEMM"}, Scheme(4, 64)),
        ({"wbits": 4, "group_size": -1, "version": None}, Scheme(4, -1)),
        ({"bits": 4, "group_size": 32, "format": "gemm", "modules_to_not_convert": None}, Scheme(4, 32)),
        ({}, Scheme(4, 128)),
    ],
)
def test_the_words_of_other_tools(config, scheme):
    assert autoawq.schemes(config, ["a"]) == {"a": scheme}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"version": "gemv"}, "version gemv"),
        ({"bits": 8}, "8 bits"),
        ({"zero_point": False}, "zero_point False"),
        ({"group_size": 0}, "group_size is 0"),
    ],
)
def test_other_kinds_of_awq(config, message):
    with pytest.raises(UserError, match=message):
        autoawq.schemes(config, ["a"])


def test_sizes_that_fit():
    assert autoawq.fits(16, 64, Scheme(4, 32))
    assert autoawq.fits(16, 65, Scheme(4, -1))
    assert not autoawq.fits(12, 64, Scheme(4, 32))
    assert not autoawq.fits(16, 65, Scheme(4, 32))
