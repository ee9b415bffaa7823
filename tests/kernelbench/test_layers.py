"""Products with what stands around them: three ways that give the same, told apart from peers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from awqbench.kernelbench import accuracy, layers
from awqbench.kernelbench.bench_command import bench_session
from awqbench.kernelbench.bench_options import BenchOptions
from awqbench.kernelbench.layers import around, our_layers
from awqbench.kernelbench.problem import Shape, random_problem
from awqbench.kernelbench.report import layer_lines, measurement_lines
from awqbench.kernelbench.results import load

CPU = torch.device("cpu")


def test_what_stands_around_a_layer() -> None:
    kinds = {
        (28672, 4096): "norm",
        (6144, 4096): "norm",
        (4096, 14336): "silu",
        (8192, 8192): "residual",
        (64, 96): "norm",
    }
    assert {size: around(Shape(*size, 32)) for size in kinds} == kinds


@pytest.mark.parametrize("what", ["norm", "silu", "residual"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_ways_are_right(what: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "around", lambda shape: what)
    problem = random_problem(Shape(72, 96, 32), 5, dtype, CPU)
    taken_in, apart, separate = our_layers(CPU)
    assert (apart.refusal(Shape(72, 96, 32), 5, dtype) is None) == (what != "residual")
    for layer in (taken_in, apart, separate):
        y = layer.run(layer.pack(problem.weights, None, dtype), problem.x[:3])
        found = accuracy.error(y, layer.expected(problem, 3))
        assert found.relative < (8 if layer is separate else 1) * accuracy.RELATIVE[dtype]
    plain = super(layers.Layer, taken_in).run(taken_in.pack(problem.weights, None, dtype), problem.x[:3])
    assert accuracy.error(plain, taken_in.expected(problem, 3)).relative > 0.01


@pytest.mark.parametrize("what", ["silu", "norm"])
def test_many_rows_are_not_taken_in(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "around", lambda shape: what)
    shape = Shape(72, 96, 32)
    refused = [[layer.refusal(shape, m, torch.float16) is not None for layer in our_layers(CPU)] for m in (8, 9, 17)]
    assert refused == [[False, False, False], [True, False, False], [True, True, True]]


def test_the_benchmark_times_them_and_keeps_them_from_the_peers(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    options = BenchOptions(
        "72x96", "3,17", group_size=32, dtypes="fp16", modes="back-to-back", out=path, peers="cublas"
    )
    told = bench_session(options, CPU, quiet=True)
    (session,) = load(path).sessions
    assert {each["peer"] for each in told["averages"]["fp16, back-to-back"]} == {"cublas"}
    (line,) = layer_lines(session.measurements)
    assert line.startswith("  72x96 72x96 g32 M=3 fp16 back-to-back: ")
    assert "layer/apart" in line
    assert "layer/separate" in line
    lines = "\n".join(measurement_lines(session, [each for each in session.measurements if each.m == 17]))
    assert "layer/" not in lines
