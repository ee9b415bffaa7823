import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.formats import compressed_tensors
from awqbench.formats.compressed_tensors import pack, pack_bits, unpack, unpack_bits
from awqbench.formats.layouts import Scheme
from awqbench.quantization.tensor import QuantizedTensor


def make(out, groups, group, bits, symmetric=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (out, groups * group), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 2**bits, (out, groups), generator=generator, dtype=torch.uint8)
    zeros = torch.full_like(zeros, 2 ** (bits - 1)) if symmetric else zeros
    scales = (torch.rand(out, groups, generator=generator) + 0.1).half()
    return QuantizedTensor(codes, scales, zeros, bits, group)


def same(a, b):
    fields = all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("codes", "scales", "zeros"))
    return fields and a.scales.dtype == b.scales.dtype and (a.bits, a.group_size) == (b.bits, b.group_size)


def test_three_bit_codes_straddle_words():
    """Codes 1..7 0 1 2 3: bits from the lowest up 100 010 110 001 101 011 111 000 100 010 11|0."""
    codes = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]], dtype=torch.uint8)
    stream = sum(code << (3 * i) for i, code in enumerate(codes[0].tolist()))
    low, high = stream & 0xFFFFFFFF, stream >> 32
    assert (hex(low), hex(high)) == ("0xd11f58d1", "0x0")  # the eleventh code's third bit is 0
    assert pack_bits(codes, 3).tolist() == [[low - 2**32, high]]


def test_four_bit_codes_lie_in_order_from_the_lowest_nibble():
    codes = torch.arange(1, 9, dtype=torch.uint8)[None]
    assert pack_bits(codes, 4).tolist() == [[0x87654321 - 2**32]]


@given(rows=st.integers(1, 9), columns=st.integers(1, 100), bits=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_any_bit_stream_comes_back(rows, columns, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.uint8)
    words = pack_bits(codes, bits)
    assert words.shape == (rows, -(-columns * bits // 32))
    assert torch.equal(unpack_bits(words, bits, columns), codes)
    assert torch.equal(unpack_bits(words.T.contiguous().T, bits, columns), codes)


@given(
    out=st.integers(1, 40), groups=st.integers(1, 5), group=st.sampled_from([1, 3, 16, 32, 43, 64]),
    bits=st.sampled_from([2, 3, 4, 8]), symmetric=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_round_trip_is_exact(out, groups, group, bits, symmetric, seed):
    before = make(out, groups, group, bits, symmetric, seed)
    scheme = Scheme(bits, group, symmetric)
    packed = pack(before, scheme)
    assert ("weight_zero_point" in packed) is not symmetric
    assert packed["weight_shape"].tolist() == [out, groups * group]
    assert same(unpack(packed, scheme), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scales_keep_their_type(dtype):
    before = make(8, 2, 16, 4)
    before = QuantizedTensor(before.codes, before.scales.to(dtype), before.zeros, 4, 16)
    assert same(unpack(pack(before, Scheme(4, 16)), Scheme(4, 16)), before)


def test_one_group_per_channel():
    before = make(5, 1, 50, 8)
    packed = pack(before, Scheme(8, -1))
    assert packed["weight_scale"].shape == (5, 1)
    assert same(unpack(packed, Scheme(8, -1)), before)


def test_unpacked_zero_points_of_older_versions():
    before = make(6, 2, 8, 4)
    packed = pack(before, Scheme(4, 8)) | {"weight_zero_point": (before.zeros.int() - 8).to(torch.int8)}
    assert same(unpack(packed, Scheme(4, 8)), before)


@pytest.mark.parametrize(
    ("changes", "scheme", "message"),
    [
        ({"weight_packed": torch.zeros(8, 3, dtype=torch.int32)}, Scheme(4, 16), r"weight_packed has shape \[8, 3\]"),
        ({"weight_scale": torch.zeros(8, 3)}, Scheme(4, 16), r"weight_scale has shape \[8, 3\]"),
        ({"weight_packed": torch.zeros(8, 4)}, Scheme(4, 16), "weight_packed must be int32"),
        ({"weight_scale": torch.zeros(8, 2).int()}, Scheme(4, 16), "weight_scale must be"),
        ({"weight_zero_point": torch.zeros(8, 2).int()}, Scheme(4, 16), r"weight_zero_point is torch.int32 \[8, 2\]"),
        ({"weight_zero_point": None}, Scheme(4, 16), "weight_zero_point is missing"),
        ({}, Scheme(8, 16), "needs"),
        ({}, Scheme(4, 24), "not divided"),
        ({}, Scheme(4, 16, True), "symmetric, but it has zero points"),
        ({"weight_g_idx": torch.zeros(32)}, Scheme(4, 16), "activation order"),
    ],
)
def test_tensors_that_do_not_belong_together(changes, scheme, message):
    packed = pack(make(8, 2, 16, 4), Scheme(4, 16)) | changes
    with pytest.raises(UserError, match=message):
        unpack({name: tensor for name, tensor in packed.items() if tensor is not None}, scheme)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="1 to 8 bits, not 9"):
        compressed_tensors.refuse(Scheme(9, 16))
    with pytest.raises(ValueError, match="zero point 8"):
        pack(make(8, 2, 16, 4), Scheme(4, 16, True))
    assert compressed_tensors.fits(7, 32, Scheme(4, 16))
    assert not compressed_tensors.fits(7, 30, Scheme(4, 16))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [16, -1])
def test_the_package_itself_packs_the_same_bits(bits, symmetric, group_size):
    """Its compressor gets the float weight that the integers stand for, with their scales and zero points."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    scheme = Scheme(bits, group_size, symmetric)
    quantized = make(10, scheme.groups(48), 48 // scheme.groups(48), bits, symmetric, seed=bits)
    ours = pack(quantized, scheme)
    config = compressed_tensors.config({"linear": scheme}, [])["config_groups"]["group_0"]
    theirs = BaseCompressor.get_value_from_registry("pack-quantized").compress(
        {
            "weight": quantized.dequantize(),
            "weight_scale": quantized.scales.float(),
            "weight_zero_point": (quantized.zeros.int() - 2 ** (bits - 1)).to(torch.int8),
        },
        QuantizationScheme(**config),
    )
    assert theirs.keys() == ours.keys()
    assert torch.equal(theirs.pop("weight_scale"), ours.pop("weight_scale").float())
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype
        assert torch.equal(tensor, ours[name]), name
