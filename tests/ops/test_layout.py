import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.ops.layout import code_width, pack_rows, unpack_rows


def test_a_block_of_32_pairs_code_j_with_code_16_plus_j():
    codes = torch.arange(32, dtype=torch.uint8)[None] % 16
    codes[0, 16:] = 15 - codes[0, 16:]
    expected = [j | (15 - j) << 4 for j in range(16)]
    assert pack_rows(codes, 32).tolist() == [expected]


def test_other_groups_pair_neighbours_and_pad_an_odd_row():
    codes = torch.tensor([[1, 2, 3]], dtype=torch.uint8)
    assert pack_rows(codes, 3).tolist() == [[0x21, 0x03]]


@given(rows=st.integers(1, 9), groups=st.integers(1, 4), group=st.sampled_from([1, 3, 4, 16, 32, 43, 64, 96, 128]))
def test_round_trip(rows, groups, group):
    codes = torch.randint(0, 16, (rows, groups * group), dtype=torch.uint8)
    packed = pack_rows(codes, group)
    assert packed.shape == (rows, -(-groups * group // 2))
    assert torch.equal(unpack_rows(packed, groups * group, group), codes)


def test_wide_codes_take_a_byte_each():
    codes = torch.arange(256, dtype=torch.uint8).view(2, 128)
    packed = pack_rows(codes, 32, 8)
    assert torch.equal(packed, codes)
    assert torch.equal(unpack_rows(packed, 128, 32, 8), codes)
    assert [code_width(bits) for bits in (2, 4, 5, 8)] == [4, 4, 8, 8]
