r"""The W4A16 linear beside torch's dense float32 linear, as pytest-benchmark micro-benchmarks.

OMP_NUM_THREADS=1 pytest suites/micro/bench_w4a16.py -o python_files="bench_*.py" -o python_functions="bench_*" \
    --benchmark-group-by=param:shape,param:rows --benchmark-columns=min,median,rounds --benchmark-max-time=0.3

Other work on the machine moves these times, so each case also times itself, the dense float32 matmul and torch's
bfloat16 int4 op in turns and stores the ratios of their minima: `dense_over_this` and `int4_over_this` in the JSON
(--benchmark-json).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from awqbench.ops import QuantizedLinear, cpu
from awqbench.quantization.tensor import QuantizedTensor

GROUP = 64
SHAPES = [(576, 576), (1536, 576), (576, 1536), (4096, 4096)]
ROWS = [1, 2, 4, 8, 16, 64, 512]
# torch's int4 op is usable in bfloat16 only.
CASES = [
    *("dense", "cpu", "cpu:bfloat16", "cpu:float16", "cpu/avx2", "cpu/avx2:bfloat16", "cpu/neon", "cpu/scalar"),
    *("torch-int4:bfloat16", "dequantize"),
]


@cache
def random_weight(shape: tuple[int, int]) -> QuantizedTensor:
    """Random integers of a linear [out, in]; speed does not depend on their values."""
    generator = torch.Generator().manual_seed(0)
    out, inputs = shape
    return QuantizedTensor(
        codes=torch.randint(0, 16, shape, generator=generator, dtype=torch.uint8),
        scales=(torch.rand(out, inputs // GROUP, generator=generator) * 0.02 + 1e-3).half(),
        zeros=torch.randint(0, 16, (out, inputs // GROUP), generator=generator, dtype=torch.uint8),
        bits=4,
        group_size=GROUP,
    )


def prepare(case: str, shape: tuple[int, int]) -> tuple[Callable[[Tensor], Tensor], torch.dtype]:
    """The function to time and the type of its input. A case is `kernel`, `kernel:type` or `cpu/instructions:type`."""
    weight = random_weight(shape)
    if case == "dense":
        return partial(torch.nn.functional.linear, weight=weight.dequantize()), torch.float32
    name, _, type_name = case.partition(":")
    dtype = getattr(torch, type_name or "float32")
    name, _, isa = name.partition("/")
    if name == "cpu" and (reason := cpu.unavailable()):
        pytest.skip(reason)
    layer = QuantizedLinear(weight, dtype=dtype, kernel=name)
    if not isa:
        return layer, dtype
    if isa not in cpu.instruction_sets():
        pytest.skip(f"no {isa} here")
    held = {"codes": layer.codes, "scales": layer.scales, "zeros": layer.zeros, "bias": None, "group_size": GROUP}
    return partial(cpu.linear, **held, isa=cpu.instruction_sets().index(isa)), dtype


def minima_in_turns(functions: list[Callable[[], Tensor]], seconds: float = 0.3, at_least: int = 7) -> list[float]:
    """The shortest time of each function, seconds, called one after the other for a while."""
    best = [float("inf")] * len(functions)
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < at_least or time.perf_counter() < end:
        for i, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - begin)
        rounds += 1
    return best


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("case", CASES)
def bench_linear(benchmark: Any, case: str, shape: tuple[int, int], rows: int) -> None:
    """One call on [rows, in]; `cpu` takes the best instruction set of the machine, `cpu/avx2` what its name says."""
    run, dtype = prepare(case, shape)
    x = torch.randn(rows, shape[1], dtype=dtype)
    benchmark.extra_info["threads"] = torch.get_num_threads()
    with torch.inference_mode():
        benchmark(run, x)
        others = [prepare(other, shape) for other in ("dense", "torch-int4:bfloat16")]
        calls = [partial(run, x), *(partial(function, x.to(kind)) for function, kind in others)]
        fastest, dense, int4 = minima_in_turns(calls)
    benchmark.extra_info["dense_over_this"] = round(dense / fastest, 3)
    benchmark.extra_info["int4_over_this"] = round(int4 / fastest, 3)
