"""The CUDA kernels of the product for many tokens, run on the CPU by kernels/host/simt.h and held against float64.

Each case runs with blocks and warps in three orders, from poisoned outputs and partial sums; every access to memory is
checked, and the bits must not depend on the order. Random cases are held against the weights rounded to x's type, which
leaves the kernel one rounding and the order of its sums.
"""

import re
import subprocess
from itertools import product

import pytest

from awqbench.ops import build
from awqbench.resources import content

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
CUDA = content("kernels") / "cuda"
TOKENS = (1, 65, 96, 127, 129, 200, 255, 257)
ROWS = (8, 24, 72, 200, 300, 513)
# K and the group: one, three and many groups, K that ends within a tile, one group per row.
DEPTHS = ((32, 32), (64, 64), (128, 128), (96, 32), (192, 64), (384, 128), (352, 32), (96, 96), (576, 192), (352, 352))
CHIPS = (1, 3, 6, 132)


def variants():
    """The names in prefill.cu, in the order of their numbers."""
    return re.findall(r'\{"([\w-]+)", Tile::', (CUDA / "prefill.cu").read_text())


VARIANTS = {name: number for number, name in enumerate(variants())}


@pytest.fixture(scope="module")
def simulate(simulating):
    return simulating("prefill_check")


def cases(variant):
    """A few of every M with every K and group; N, values, type, bias, row stride and chip go round beside them, so that
    all variants together meet all of it."""
    for i, (tokens, (depth, group)) in enumerate(product(TOKENS, DEPTHS)):
        if (i + 5 * variant) % 16:
            continue
        turn = i // 16 + variant
        values = ("random", "integers", "random", "onehot")[turn % 4]
        yield (
            values, tokens, ROWS[(i + turn) % len(ROWS)], depth, group, (i // 4 + turn) % 2, variant, turn % 2,
            (0, 8, 32)[turn % 3], CHIPS[(i // 3 + variant) % 4],
        )  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_right_at_many_shapes(simulate, variant):
    assert len(simulate(cases(variant))) >= 4


@pytest.mark.parametrize("dtype", [0, 1], ids=["half", "bfloat16"])
def test_one_hot_inputs_recover_the_rounded_weights(simulate, dtype):
    simulate(
        ("onehot", 64, rows, depth, group, dtype, VARIANTS[variant], 0, 0, 2)
        for variant in ("tall", "narrow-whole", "wide")
        for rows, depth, group in ((72, 64, 32), (64, 64, 64))
    )


def test_tails_are_shared_by_two_and_by_many_blocks(simulate):
    # Whole turns before a tail, one tile for all, and more tiles than an even number of blocks for each.
    simulate(
        ("integers" if chip == 5 else "random", tokens, rows, depth, 64, 1, VARIANTS[variant], 1, 0, chip)
        for variant, tokens, rows in (("tall", 130, 300), ("narrow", 97, 300), ("wide", 257, 130))
        for depth, chip in ((320, 3), (448, 5), (64, 132))
    )


def test_a_thousand_tokens(simulate):
    simulate([("integers", 1000, 136, 96, 32, 0, 0, 1, 8, 7)])


def test_bad_requests_are_refused(tmp_path):
    program, source = tmp_path / "refuse", tmp_path / "refuse.cpp"
    source.write_text(
        f'#include "{CUDA}/prefill.cu"\n'
        "int awqbench::prefill_half(const PrefillRequest&, const Device&) { return 0; }\n"
        "int awqbench::prefill_bfloat16(const PrefillRequest&, const Device&) { return 0; }\n"
        "alignas(16) char at[64];\n"
        "int ask(int64_t M, int64_t N, int64_t K, int64_t group, int dtype, int variant, int shift = 0,\n"
        "        int64_t stride = 64) {\n"
        "    return awqbench_cuda_prefill(at + shift, at, at, at, at, at, 0, M, N, K, group, stride, dtype, variant,\n"
        "                                 nullptr);\n}\n"
        "int main() {\n"
        f'    if (std::string(awqbench_cuda_prefill_variants()) != "{",".join(variants())}") return 3;\n'
        "    if (ask(65, 64, 64, 64, 0, 0) != 0 || ask(5000, 1, 96, 96, 1, kPrefillVariantCount - 1) != 0) return 1;\n"
        "    if (!(ask(0, 64, 64, 64, 0, 0) && ask(65, 0, 64, 64, 0, 0) && ask(65, 64, 48, 48, 0, 0) &&\n"
        "          ask(65, 64, 192, 96, 0, 0) && ask(65, 64, 96, 64, 0, 0) && ask(65, 64, 64, 0, 0, 0) &&\n"
        "          ask(65, 64, 64, 64, 2, 0) && ask(65, 64, 64, 64, 0, kPrefillVariantCount) &&\n"
        "          ask(65, 64, 64, 64, 0, -1) && ask(65, 64, 64, 64, 0, 0, 2) && ask(65, 64, 64, 64, 0, 0, 0, 65) &&\n"
        "          ask(int64_t{1} << 20, int64_t{1} << 29, 64, 64, 0, 0)))\n"
        "        return 2;\n"
        "    simulated_device().wgmma = false;\n"
        "    return ask(65, 64, 64, 64, 0, 0) && awqbench_cuda_prefill_scratch(65, 64, 64, 64, 0, 0) < 0 ? 0 : 4;\n}\n"
    )
    subprocess.run([build.compiler(), "-std=c++17", "-Wno-unknown-pragmas", source, "-o", program], check=True)
    subprocess.run([program], check=True)
