import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.ops import cuda_layout


def random_weight(n, k, group, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (n, k), generator=generator, dtype=torch.uint8)
    scales = torch.randint(-(2**15), 2**15, (n, k // group), generator=generator, dtype=torch.int16).view(torch.float16)
    return codes, scales, torch.randint(0, 16, (n, k // group), generator=generator, dtype=torch.uint8)


def bits(scales):
    return scales.view(torch.int16)  # compares NaN too


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 200), group=st.sampled_from([32, 64, 128, 192, "row"]), count=st.integers(1, 6),
    seed=st.integers(0, 2**31), small_chunks=st.booleans(),
)  # fmt: skip
def test_nothing_is_lost(n, group, count, seed, small_chunks):
    k, group = (32 * count, 32 * count) if group == "row" else (group * count, group)
    codes, scales, zeros = random_weight(n, k, group, seed)
    with pytest.MonkeyPatch.context() as patch:
        if small_chunks:
            patch.setattr(cuda_layout, "_CHUNK_BYTES", 1)
        tiles, steps = cuda_layout.pack(codes, scales, zeros, group)
    assert (tuple(tiles.shape), tuple(steps.shape)) == cuda_layout.shapes(n, k, group)
    assert tiles.is_contiguous()
    assert steps.is_contiguous()
    back = cuda_layout.unpack(tiles, steps, n, k, group)
    assert torch.equal(back[0], codes)
    assert torch.equal(bits(back[1]), bits(scales))
    assert torch.equal(back[2], zeros)


@pytest.mark.parametrize(
    ("row", "k", "index", "bit"),
    [
        (0, 0, (0, 0, 0, 0, 0), 0),
        (0, 1, (0, 0, 0, 0, 0), 16),  # the odd code of pair 0 is nibble 4
        (8, 0, (0, 0, 0, 0, 0), 4),  # row g + 8: pair 1
        (0, 8, (0, 0, 0, 0, 0), 8),  # k + 8: pair 2
        (8, 9, (0, 0, 0, 0, 0), 28),  # pair 3, odd: nibble 7
        (1, 2, (0, 0, 0, 5, 0), 0),  # g = 1, t = 1: lane 5
        (7, 7, (0, 0, 0, 31, 0), 16),  # g = 7, t = 3
        (0, 16, (0, 0, 0, 0, 1), 0),  # the next fragment
        (16, 0, (0, 0, 1, 0, 0), 0),  # the next block
        (63, 63, (0, 0, 3, 31, 3), 28),
        (0, 64, (0, 1, 0, 0, 0), 0),
        (64, 0, (1, 0, 0, 0, 0), 0),
        (64 + 29, 64 + 37, (1, 1, 1, 22, 2), 20),  # 29 = 16 + 8 + 5, 37 = 32 + 5: lane 4 * 5 + 2, pair 1, odd
    ],
)
def test_where_a_code_lies(row, k, index, bit):
    codes = torch.zeros(128, 128, dtype=torch.uint8)
    codes[row, k] = 15
    scales, zeros = torch.zeros(128, 2, dtype=torch.float16), torch.zeros(128, 2, dtype=torch.uint8)
    tiles, _ = cuda_layout.pack(codes, scales, zeros, 64)
    assert torch.nonzero(tiles).tolist() == [list(index)]
    assert tiles[index].item() & 0xFFFFFFFF == 15 << bit


@pytest.mark.parametrize(
    ("row", "group", "scale_at", "zero_at", "shift"),
    [
        (0, 0, (0, 0, 0), (0, 0, 128), 0),
        (8, 0, (0, 0, 2), (0, 0, 128), 4),
        (1, 1, (0, 1, 4), (0, 1, 129), 0),
        (16, 2, (0, 2, 32), (0, 2, 136), 0),
        (63, 2, (0, 2, 126), (0, 2, 159), 4),
        (64 + 29, 1, (1, 1, 32 + 22), (1, 1, 136 + 5), 4),
    ],
)
def test_where_a_scale_and_a_zero_point_lie(row, group, scale_at, zero_at, shift):
    scales, zeros = torch.zeros(128, 3, dtype=torch.float16), torch.zeros(128, 3, dtype=torch.uint8)
    scales[row, group], zeros[row, group] = 1.0, 11  # 1.0 is 0x3c00: only its second byte is not 0
    _, steps = cuda_layout.pack(torch.zeros(128, 96, dtype=torch.uint8), scales, zeros, 32)
    first = (*scale_at[:2], scale_at[2] + 1)
    assert torch.nonzero(steps).tolist() == sorted([list(first), list(zero_at)])
    assert steps[first] == 0x3C
    assert steps[zero_at] == 11 << shift


def test_padding_is_zero():
    codes, scales, zeros = random_weight(65, 96, 96)
    tiles, steps = cuda_layout.pack(codes.fill_(15), scales.fill_(1), zeros.fill_(15), 96)
    assert cuda_layout.unpack_codes(tiles, 128, 128).sum() == 15 * 65 * 96
    padded_scales, padded_zeros = cuda_layout.unpack_steps(steps, 128)
    assert padded_scales.sum() == 65
    assert padded_zeros.sum() == 15 * 65


def test_a_strided_view_packs_as_its_copy_does():
    codes, scales, zeros = random_weight(70, 256, 64)
    wide = torch.stack((codes, codes), dim=-1)[..., 0]
    assert not wide.is_contiguous()
    for ours, theirs in zip(
        cuda_layout.pack(wide, scales, zeros, 64), cuda_layout.pack(codes, scales, zeros, 64), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_what_does_not_fit_is_refused():
    assert [cuda_layout.fits(k, group) for k, group in [(96, 32), (96, 96), (192, 192), (256, 128)]] == [True] * 4
    assert [cuda_layout.fits(k, group) for k, group in [(96, 48), (192, 96), (80, 80), (100, 64), (0, 64)]] == [
        False
    ] * 5
    codes, scales, zeros = random_weight(64, 64, 64)
    with pytest.raises(ValueError, match="zero point is 16"):
        cuda_layout.pack(codes, scales, zeros.fill_(16), 64)
    with pytest.raises(ValueError, match="bfloat16"):
        cuda_layout.pack(codes, scales.bfloat16(), zeros.fill_(0), 64)
    with pytest.raises(ValueError, match="group 48"):
        cuda_layout.pack(codes[:, :48], scales, zeros, 48)
