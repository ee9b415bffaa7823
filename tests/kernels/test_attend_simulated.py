"""The attention of one decoding step, run on the CPU by kernels/host/simt.h and held against float64.

Each case runs a step or more with blocks and warps in three orders; what must not be seen is NaN and not readable, and
the bits must not depend on the order. What only a GPU can show: awqbench kernels check.
"""

import subprocess
from itertools import product

import pytest

from awqbench.ops import build
from awqbench.resources import content

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
SIZES = (64, 128, 80, 96, 256, 8, 72, 16, 40, 184)
GROUPS = (1, 4, 8, 16, 7, 5, 12, 20, 2, 33)  # query heads of a key head; more than 16 take several passes
CHIPS = (1, 6, -3, 132, -8, 16)
PLACES = 32  # of a slice, at the least
FIELDS = ("values", "batch", "heads", "key_heads", "size", "capacity", "rotary", "length", "steps", "padding", "window",
          "cap", "norms", "dtype", "chip")  # fmt: skip


@pytest.fixture(scope="module")
def simulate(tmp_path_factory):
    program, source = tmp_path_factory.mktemp("attend") / "check", content("kernels") / "host" / "attend_check.cpp"
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    subprocess.run([build.compiler(), "-std=c++17", "-O1", *warnings, source, "-o", program], check=True)

    def run(cases):
        lines = [" ".join(str(case[name]) for name in FIELDS) for case in cases]
        done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True)
        wrong = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
        assert done.returncode == 0, "\n".join(wrong) + done.stderr
        assert len(done.stdout.splitlines()) == len(lines)

    return run


def case(values="random", heads=4, key_heads=1, size=64, length=40, **more):
    rotary = size if values == "random" else 0
    plain = {"batch": 1, "capacity": length + 2, "rotary": rotary, "steps": 2, "padding": 0, "window": 0, "cap": 0,
             "norms": 0, "dtype": 0, "chip": 6}  # fmt: skip
    return {**plain, "values": values, "heads": heads, "key_heads": key_heads, "size": size, "length": length, **more}


def every_kind():
    """Every size with every number of heads; what else there is goes round with strides of its own."""
    for i, (size, group) in enumerate(product(SIZES, GROUPS), start=1):
        capacity = (64, 200, 130, 48)[i % 4]
        length = min((0, 1, 15, 16, 31, 32, 33, 47, capacity, capacity // 2, 63, 64)[i % 12], capacity - 2)
        kinds = ("random", "onehot", "even") if size >= 64 else ("even", "random")
        values = kinds[i % len(kinds)]
        random = values == "random"
        yield case(
            values, group * (1, 2, 3)[i % 3], (1, 2, 3)[i % 3], size, length,
            batch=(1, 2, 3)[i // 3 % 3], capacity=capacity, padding=(0, 0, 5, 40)[i // 4 % 4],
            rotary=(size, size // 4 * 2, 0)[i // 2 % 3] if random else 0, window=(0, 0, 20, 7)[i // 7 % 4],
            cap=(0, 0, 30, 5)[i // 5 % 4] if random else 0, norms=int(random and i // 3 % 2 == 1), dtype=i // 2 % 2,
            chip=CHIPS[i % len(CHIPS)],
        )  # fmt: skip


def test_every_size_and_number_of_heads(simulate):
    simulate(every_kind())


def test_borders_of_slices(simulate):
    # Eight slices, then more: two tiles each at first, and 9 or 17 of them, which the merge takes eight at a time.
    few = [PLACES * n + d for n in (1, 2, 8) for d in (-1, 0, 1)] + [298]
    simulate(case(values, heads, 1, 64, n, capacity=300, dtype=heads % 4 // 2, chip=8)
             for n in few for values, heads in (("onehot", 2), ("even", 12)))  # fmt: skip
    simulate(case(values, heads, 1, 64, n, capacity=700, dtype=heads // 12, chip=20 + heads)
             for n in (283, 288, 289, 545) for values, heads in (("onehot", 8), ("random", 12)))  # fmt: skip


@pytest.mark.parametrize("dtype", [0, 1], ids=["half", "bfloat16"])
def test_nothing_is_lost_but_the_last_rounding(simulate, dtype):
    """Where queries and keys stay as they are, the check holds the error to 1.01 times that of rounding the result."""
    simulate(case(heads=heads, size=size, length=300, rotary=0, dtype=dtype, chip=3)
             for heads in (4, 12) for size in (64, 128, 256))  # fmt: skip


def test_the_first_token_and_a_full_cache(simulate):
    simulate(case(values, 8, 2, 64, n, capacity=n + steps, steps=steps, norms=int(values == "random"))
             for values in ("random", "onehot") for n, steps in ((0, 3), (1, 1), (47, 1), (63, 2)))  # fmt: skip
