import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.formats.autoawq import pack, unpack
from awqbench.quantization.tensor import QuantizedTensor


def tensor(codes, zeros, group_size, bits=4):
    groups = codes.shape[1] // group_size
    scales = torch.linspace(0.01, 0.5, codes.shape[0] * groups).view(codes.shape[0], groups).half()
    return QuantizedTensor(codes, scales, zeros, bits, group_size)


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
    bits=st.sampled_from([3, 4]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_round_trip_is_exact(eighths, groups, group, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (8 * eighths, groups * group), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 2**bits, (8 * eighths, groups), generator=generator, dtype=torch.uint8)
    before = tensor(codes, zeros, group, bits)
    after = unpack(pack(before), bits)
    assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in ("codes", "scales", "zeros"))
    assert (after.bits, after.group_size) == (bits, group)


def test_what_does_not_fit_is_refused():
    codes = torch.zeros(12, 4, dtype=torch.uint8)
    with pytest.raises(UserError, match="divisible by 8, got 12"):
        pack(tensor(codes, codes[:, :2], 2))
    codes = torch.zeros(8, 4, dtype=torch.uint8)
    with pytest.raises(UserError, match="at most 4 bits, got 5"):
        pack(tensor(codes, codes[:, :2], 2, bits=5))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scales", lambda t: t[:1], "scales has shape"),
        ("qzeros", lambda t: t.to(torch.int64), "qzeros must be int32"),
        ("scales", lambda t: t.float(), "scales must be float16"),
        ("qweight", lambda t: t[:3], "2 groups do not divide 3 inputs"),
    ],
)
def test_tensors_that_do_not_belong_together(name, change, message):
    codes = torch.zeros(8, 4, dtype=torch.uint8)
    packed = pack(tensor(codes, codes[:, :2].contiguous(), 2))
    with pytest.raises(UserError, match=message):
        unpack({**packed, name: change(packed[name])})
