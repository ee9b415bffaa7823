"""kernels/cuda/layout.h and dequant.h, run on the host: the maps and the arithmetic that the kernels use."""

import subprocess

import numpy as np
import pytest
import torch

from awqbench.ops import build, cuda_layout
from awqbench.resources import content

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
SIZES = [(1, 32, 32), (70, 96, 96), (64, 128, 32), (200, 192, 64), (130, 1152, 128), (129, 384, 192)]


def compiled(name, folder, *flags):
    """What runs a program of kernels/host, compiled with warnings as errors."""
    program, source = folder / name, content("kernels") / "host" / f"{name}.cpp"
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    subprocess.run([build.compiler(), "-std=c++17", "-O2", *warnings, *flags, source, "-o", program], check=True)

    def run(*arguments):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    return compiled("check_layout", tmp_path_factory.mktemp("host"), "-Wconversion")


@pytest.fixture(scope="module")
def simulated_dequantize(tmp_path_factory):
    return compiled("dequantize_check", tmp_path_factory.mktemp("host"))


def lane_by_lane(codes, scales, zeros, group):
    """The packed bytes as the contract puts it, lane by lane: an oracle that shares no code with what it judges."""
    n, k = codes.shape
    groups = k // group
    rows, columns = -(-n // 64), -(-k // 64)
    full = np.zeros((64 * rows, 64 * columns), dtype=np.uint32)
    full[:n, :k] = codes
    scale, zero = np.zeros((64 * rows, groups), np.uint16), np.zeros((64 * rows, groups), np.uint8)
    scale[:n], zero[:n] = scales, zeros
    tiles = np.zeros((rows, columns, 4, 32, 4), np.uint32)
    steps = np.zeros((rows, groups, 160), np.uint8)
    for block in range(4):
        for lane in range(32):
            g, t = lane // 4, lane % 4
            pairs = [(g, 2 * t), (g + 8, 2 * t), (g, 2 * t + 8), (g + 8, 2 * t + 8)]
            for s in range(4):
                for p, (row, even) in enumerate(pairs):
                    part = full[16 * block + row :: 64]
                    tiles[:, :, block, lane, s] |= part[:, 16 * s + even :: 64] << (4 * p)
                    tiles[:, :, block, lane, s] |= part[:, 16 * s + even + 1 :: 64] << (4 * p + 16)
        for g in range(8):
            for h in range(2):
                row = 16 * block + g + 8 * h
                at = 2 * (16 * block + 2 * g + h)
                steps[:, :, at], steps[:, :, at + 1] = scale[row::64] & 0xFF, scale[row::64] >> 8
                steps[:, :, 128 + 8 * block + g] |= zero[row::64] << (4 * h)
    return tiles, steps


def weight(n, k, group):
    generator = np.random.default_rng(n + k)
    codes = generator.integers(0, 16, (n, k), dtype=np.uint8)
    exponent = generator.uniform(-3, 0, (n, k // group))
    return codes, (10**exponent).astype(np.float16), generator.integers(0, 16, (n, k // group), dtype=np.uint8)


def packed(codes, scales, zeros, group):
    return cuda_layout.pack(*(torch.from_numpy(part) for part in (codes, scales, zeros)), group)


@pytest.fixture
def written(tmp_path):
    """Writes a packed weight; the program's arguments for it."""

    def write(n, k, group):
        codes, scales, zeros = weight(n, k, group)
        tiles, steps = packed(codes, scales, zeros, group)
        (tmp_path / "tiles").write_bytes(tiles.numpy().tobytes())
        (tmp_path / "steps").write_bytes(steps.numpy().tobytes())
        return (codes, scales, zeros), (tmp_path / "tiles", tmp_path / "steps", n, k, group)

    return write


def test_every_place_and_every_pattern(check):
    said = check()
    assert "step: 160 bytes" in said
    assert "maps 2049 x 1408: 2973696 places" in said
    assert "decode half: 8388608 values" in said  # 65536 patterns x 16 zero points x 8 codes
    assert "decode bfloat16: 8388608 values" in said


@pytest.mark.parametrize(("n", "k", "group"), SIZES)
def test_packing_is_what_the_contract_says_of_each_lane(n, k, group):
    codes, scales, zeros = weight(n, k, group)
    tiles, steps = packed(codes, scales, zeros, group)
    wanted_tiles, wanted_steps = lane_by_lane(codes, scales.view(np.uint16), zeros, group)
    assert np.array_equal(tiles.numpy().view(np.uint32), wanted_tiles)
    assert np.array_equal(steps.numpy(), wanted_steps)


@pytest.mark.parametrize(("n", "k", "group"), SIZES)
def test_the_maps_of_the_kernels_read_back_what_torch_packed(check, written, tmp_path, n, k, group):
    (codes, scales, zeros), arguments = written(n, k, group)
    check("read", *arguments, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == codes.tobytes() + scales.tobytes() + zeros.tobytes()


@pytest.mark.parametrize(("number", "dtype"), [(0, torch.float16), (1, torch.bfloat16)])
@pytest.mark.parametrize(("n", "k", "group"), SIZES)
def test_weights_are_rounded_once(check, simulated_dequantize, written, tmp_path, n, k, group, number, dtype):
    """By the functions alone, place by place, and by the dequantize kernel, whose threads the simulator runs."""
    (codes, scales, zeros), arguments = written(n, k, group)
    exact = (codes.reshape(n, -1, group).astype(np.float64) - zeros[:, :, None]) * scales[:, :, None].astype(np.float64)
    expected = torch.from_numpy(exact.reshape(n, k)).float().to(dtype)  # exact in float32: 16 significant bits
    check("weights", *arguments, number, tmp_path / "out")
    simulated_dequantize(*arguments, number, tmp_path / "kernel")
    for name in ("out", "kernel"):
        found = torch.from_numpy(np.fromfile(tmp_path / name, np.int16))
        assert torch.equal(found.view(n, k), expected.view(torch.int16)), name


def test_the_host_s_half_and_bfloat16_are_numpy_s_and_torch_s(check, tmp_path):
    check("floats", tmp_path / "out")
    found = np.fromfile(tmp_path / "out", np.float32).reshape(2, 65536)
    patterns = np.arange(65536, dtype=np.uint16)
    halves = patterns.view(np.float16).astype(np.float32)
    numbers = ~np.isnan(halves)
    assert np.array_equal(np.isnan(found[0]), ~numbers)
    assert np.array_equal(found[0][numbers].view(np.uint32), halves[numbers].view(np.uint32))
    assert np.array_equal(found[1].view(np.uint32), patterns.astype(np.uint32) << 16)

    generator = np.random.default_rng(0)
    numbers = generator.normal(size=100_000) * 10 ** generator.uniform(-9, 6, 100_000)
    halves = halves[np.isfinite(halves)]
    # Every half, and the middle between neighbours, where ties go to even.
    numbers = np.concatenate([numbers.astype(np.float32), halves, (halves[:-1] + halves[1:]) / 2])
    numbers.astype(np.float64).tofile(tmp_path / "in")
    for number, dtype in ((0, torch.float16), (1, torch.bfloat16)):
        check("round", number, tmp_path / "in", tmp_path / "out")
        expected = torch.from_numpy(numbers).to(dtype).view(torch.int16).numpy()
        assert np.array_equal(np.fromfile(tmp_path / "out", np.int16), expected)
