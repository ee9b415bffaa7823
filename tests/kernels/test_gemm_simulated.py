"""The CUDA kernels of the 4-bit product, run on the CPU by kernels/host/simt.h and held against float64.

Each case runs with blocks and warps in three orders, from poisoned outputs and partial sums; every access to memory is
checked, and the bits must not depend on the order. What only a GPU can show: awqbench kernels check.
"""

import re
import subprocess
from itertools import product

import pytest

from awqbench.ops import build
from awqbench.resources import content

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
TOKENS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64)
ROWS = (8, 24, 72, 64, 200)
# K and the group: one, three and many groups, K that ends within a tile, one group per row.
DEPTHS = (
    (32, 32),
    (64, 64),
    (128, 128),
    (96, 32),
    (192, 64),
    (384, 128),
    (1056, 32),
    (1056, 1056),
    (96, 96),
    (576, 192),
)
MISTAKES = (
    "lanes apart",
    "left early",
    "outside",
    "beyond shared",
    "write to input",
    "no barrier",
    "overwritten",
    "copy not awaited",
    "read of output",
    "sum not fenced",
    "barrier not initialized",
    "too few bytes",
    "bulk copy not awaited",
    "filled too early",
    "ring copy not awaited",
    "no fence",
    "fragments changed",
    "released too early",
    "product not awaited",
    "no group barrier",
    "read before the wait",
    "written before the wait",
    "left without waiting",
)
NORM, SILU, RELU = 1, 2, 5  # `before` of kernels/cuda/w4a16.h, which counts f(x)
APART, CHAIN = 1, 2  # by a kernel of its own; a second product on the first one's result


@pytest.fixture(scope="module")
def simulate(simulating):
    return simulating("gemm_check")


def variants():
    """The names in gemm.cu, in the order of their numbers."""
    return re.findall(r'\{"([\w-]+)", Kind::', (content("kernels") / "cuda" / "gemm.cu").read_text())


def cases(variant):
    """Every M with every K and group; N, values, type, bias, row stride and chip go round with strides of their own."""
    for i, (tokens, (depth, group)) in enumerate(product(TOKENS, DEPTHS)):
        if (i + variant) % 3:  # a third of them for each variant, another third for the next
            continue
        values = ("random", "integers", "onehot")[(i // 3 + variant) % 3]
        rows = ROWS[(7 * i + variant) % len(ROWS)]
        padding = (0, 8, 3, 32)[(i + variant) // 3 % 4]
        chip = (1, -3, 6, 132, -1)[(i // 2 + variant) % 5]
        yield values, tokens, rows, depth, group, (i // 5 + variant) % 2, variant, i % 2, padding, chip


# To overlap with the kernel before changes the launch and nothing else: tested on products that follow each other.
KERNELS = {name: number for number, name in enumerate(variants()) if not name.endswith("overlap")}


@pytest.mark.parametrize("variant", KERNELS.values(), ids=KERNELS)
def test_every_variant_is_right_at_every_shape(simulate, variant):
    simulate(cases(variant))


@pytest.mark.parametrize("dtype", [0, 1], ids=["half", "bfloat16"])
def test_one_hot_inputs_recover_the_weights(simulate, dtype):
    # 64 tokens, each the unit vector of another k; the seed, and with it the first k, moves with M and N.
    simulate(
        ("onehot", 64, rows, depth, group, dtype, variant, 0, 0, 2)
        for variant in KERNELS.values()
        for rows, depth, group in ((72, 64, 32), (64, 64, 64))
    )


def test_zero_points_of_small_groups_are_their_own(simulate):
    # One tile of 64 k spans two groups of 32: a kernel that takes one zero point for both is finite, and wrong.
    simulate(
        (values, tokens, 200, 1056, 32, dtype, variant, 0, 0, 6)
        for variant in KERNELS.values()
        for values, tokens, dtype in (("integers", 5, 0), ("random", 16, 1))
    )


def test_few_blocks_share_long_rows_and_many_share_short_ones(simulate):
    # From one block per SM that takes several panels to several blocks that share one.
    simulate(
        ("integers", tokens, 64 * tiles, 64 * depth, 64, 0, variant, 1, 0, chip)
        for variant in KERNELS.values()
        if variant
        for tokens in (2, 40)
        for tiles, depth, chip in ((1, 33, 1), (5, 7, 1), (1, 40, 132), (3, 11, 2))
    )


@pytest.mark.parametrize("before", range(6))
def test_what_is_taken_in_gives_the_bits_of_doing_it_first(simulate, before):
    """The plain product on f(x), which float64 checks; launches that follow begin before the one in front of them."""
    lines = []
    for i, variant in enumerate(KERNELS.values()):
        tokens = (1, 3, 8)[(i + before) % 3] if before else (1, 5, 16, 33)[i % 4]
        rows, (depth, group) = ROWS[(i + before) % 5], ((96, 32), (192, 64), (384, 128), (1056, 1056))[(i + before) % 4]
        values = ("random", "integers", "onehot")[i % 3]
        chip, padding = (1, 6, -3, 132)[i % 4], (0, 8, 3 if before == 0 else 32)[i % 3]
        lines.append(
            (values, tokens, rows, depth, group, i % 2, variant, i % 3 == 0, padding, chip, before, 1 - i % 2, 0)
        )
        lines.append(("random", (9, 40, 64)[i % 3], 64, 64, 64, i % 2, variant, 0, 8, chip, before, 1, APART))
    simulate(tuple(map(int_of, line)) for line in lines)


def int_of(value):
    return value if isinstance(value, str) else int(value)


def test_the_chunks_of_a_long_gate_lie_apart(simulate):
    """Four of them by turns in two places, each with a second half behind it."""
    kinds = [KERNELS[name] for name in ("stream", "bulk", "group")]
    simulate(("integers", 2, 64, 12800, 128, i % 2, variant, 0, 0, 1, RELU, 1, 0) for i, variant in enumerate(kinds))


def test_a_product_that_begins_before_its_input_is_there_waits(simulate):
    """All variants that start early, and the default as fused calls launch it; partial sums share one workspace."""
    early = [0, *(number for number, name in enumerate(variants()) if name.endswith("overlap"))]
    simulate(
        ("random", 3, 384 if before >= SILU else 192, 192, 64, i % 2, variant, 0, 0, (2, 6)[i % 2], before, 1, way)
        for i, (variant, before) in enumerate(product(early, (0, NORM, SILU)))
        for way in (CHAIN, CHAIN | APART)[: 1 + (variant == 0)]
    )


def test_bad_requests_are_refused(tmp_path):
    program = tmp_path / "refuse"
    source = tmp_path / "refuse.cpp"
    cuda = content("kernels") / "cuda"
    source.write_text(
        f'#include "{cuda}/gemm.cu"\n#include "{cuda}/rows.cu"\n'
        "int awqbench::launch_half(const Request&, const Device&) { return 0; }\n"
        "int awqbench::launch_bfloat16(const Request&, const Device&) { return 0; }\n"
        "int ask(int64_t M, int64_t N, int64_t K, int64_t group, int dtype, int variant) {\n"
        "    return awqbench_cuda_gemm(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, M, N, K, group, K,\n"
        "                              dtype, variant, nullptr);\n}\n"
        "int fuse(int before, int64_t M, bool norm, int residual_at, int y_at) {\n"
        "    alignas(16) static uint16_t memory[4096];\n"
        "    AwqbenchGemm g{};\n"
        "    g.x = memory, g.y = memory + y_at, g.residual = residual_at < 0 ? nullptr : memory + residual_at;\n"
        "    g.norm = norm ? reinterpret_cast<const float*>(memory) : nullptr;\n"
        "    g.M = M, g.N = 64, g.K = 64, g.group = 64, g.x_stride = 64, g.before = before;\n"
        "    return awqbench_cuda_fused(&g);\n}\n"
        "int main() {\n"
        "    if (fuse(0, 2, false, -1, 1024) || fuse(1, 2, true, 2048, 1024) || fuse(2, 8, false, -1, 2048))\n"
        "        return 4;\n"
        "    if (!fuse(0, 2, false, 1024, 1024) || !fuse(0, 2, false, 1100, 1024) || !fuse(0, 2, false, -1, 100) ||\n"
        "        !fuse(1, 2, false, -1, 1024) || !fuse(0, 2, true, -1, 1024) || !fuse(2, 9, false, -1, 2048) ||\n"
        "        !fuse(1, 9, true, -1, 2048) || !fuse(6, 2, false, -1, 1024) || !fuse(-1, 2, false, -1, 1024))\n"
        "        return 5;\n"
        f'    if (std::string(awqbench_cuda_variants()) != "{",".join(variants())}") return 3;\n'
        "    if (ask(1, 64, 64, 64, 0, 0) != 0 || ask(64, 1, 96, 96, 1, kVariantCount - 1) != 0) return 1;\n"
        "    return ask(0, 64, 64, 64, 0, 0) && ask(65, 64, 64, 64, 0, 0) && ask(1, 0, 64, 64, 0, 0) &&\n"
        "           ask(1, 64, 48, 48, 0, 0) && ask(1, 64, 192, 96, 0, 0) && ask(1, 64, 96, 64, 0, 0) &&\n"
        "           ask(1, 64, 64, 0, 0, 0) && ask(1, 64, 64, 64, 2, 0) && ask(1, 64, 64, 64, 0, kVariantCount) &&\n"
        "           ask(1, 64, 64, 64, 0, -1) ? 0 : 2;\n}\n"
    )
    subprocess.run([build.compiler(), "-std=c++17", "-Wno-unknown-pragmas", source, "-o", program], check=True)
    subprocess.run([program], check=True)


@pytest.fixture(scope="module")
def mistaken(compiled):
    return compiled("simt_check")


def test_the_simulator_passes_a_kernel_without_mistakes(mistaken):
    assert subprocess.run([mistaken, "none"]).returncode == 0


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_simulator_sees_mistakes(mistaken, mistake):
    done = subprocess.run([mistaken, mistake], capture_output=True, text=True)
    assert done.returncode == 70
    assert done.stderr.startswith("simt: ")
