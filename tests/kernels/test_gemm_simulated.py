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
)


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


# To overlap with the kernel before changes the launch, which the simulator does not know, and nothing else.
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


def test_bad_requests_are_refused(tmp_path):
    program = tmp_path / "refuse"
    source = tmp_path / "refuse.cpp"
    cuda = content("kernels") / "cuda"
    source.write_text(
        f'#include "{cuda}/gemm.cu"\n'
        "int awqbench::launch_half(const Request&, const Device&) { return 0; }\n"
        "int awqbench::launch_bfloat16(const Request&, const Device&) { return 0; }\n"
        "int ask(int64_t M, int64_t N, int64_t K, int64_t group, int dtype, int variant) {\n"
        "    return awqbench_cuda_gemm(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, M, N, K, group, K,\n"
        "                              dtype, variant, nullptr);\n}\n"
        "int main() {\n"
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
