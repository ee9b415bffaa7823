"""The checks of what a product takes in: a norm or a gate of its inputs, a residual added to its results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench import accuracy
from awqbench.kernelbench.guarded import fenced_rows
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.outcome import CheckFailed
from awqbench.kernelbench.problem import Problem, Shape, random_problem
from awqbench.kernelbench.reference import Reference, reference
from awqbench.kernelbench.trials import same, wait, where
from awqbench.ops.fused_linear import GATES, inputs

CHAIN = 6  # launches that feed each other
EPS = 0.25  # large, so that one left out shows


@dataclass(frozen=True)
class Surroundings:
    """What stands around a product. `norm` float32 [K], or `gate` with x [M, 2 K]; `residual` [M, N] or None."""

    norm: Tensor | None
    gate: str | None
    residual: Tensor | None

    def rows(self, m: int) -> dict[str, Any]:
        """The arguments of `Implementation.fused` for the first m rows."""
        residual = None if self.residual is None else self.residual[:m]
        return {
            "norm": self.norm,
            "eps": EPS if self.norm is not None else 0.0,
            "gate": self.gate,
            "residual": residual,
        }

    def before(self, x: Tensor) -> Tensor:
        """f(x), in plain torch."""
        return inputs(x, self.norm, EPS, self.gate)


def surroundings(what: str, shape: Shape, m: int, dtype: torch.dtype, device: torch.device) -> Surroundings:
    """`norm` or a gate, with numbers of a seed of their own; a residual in any case."""
    draw = torch.Generator(device).manual_seed(7)
    norm = 1 + 0.25 * torch.randn(shape.k, generator=draw, device=device) if what == "norm" else None
    residual = (10.0 * torch.randn(m, shape.n, generator=draw, device=device)).to(dtype)
    return Surroundings(norm, None if what == "norm" else what, residual)


def wide(x: Tensor, around: Surroundings) -> Tensor:
    """x, or with a gate another's gate half before it."""
    return x if around.gate is None else torch.cat((x.flip(1) / 8, x), dim=1)


def expected(problem: Problem, around: Surroundings, x: Tensor) -> Reference:
    """float64 on f(x), which is rounded once."""
    found = reference(replace(problem, x=around.before(x)))
    return found if around.residual is None else Reference(found.y + around.residual[: len(x)].double(), found.spread)


def check_taken_in(kernel: Implementation, problem: Problem, shape: Shape, batches: list[int]) -> str:
    """Every norm and gate with a residual: error bounds against float64, the same bits whether the product computes
    f(x) or a kernel of its own does, and a second time."""
    device, dtype, most = problem.x.device, problem.x.dtype, max(batches)
    packed = kernel.pack(problem.weights, problem.bias, dtype)
    worst = 0.0
    for what in ("norm", *GATES):
        around = surroundings(what, shape, most, dtype, device)
        x = wide(problem.x, around)
        right = expected(problem, around, x)
        for m in batches:
            part = right.rows(m)
            if device.type == "cuda":  # the allocator hands the output the block that is freed here
                torch.full((m, shape.n), float("nan"), dtype=dtype, device=device)
            y = kernel.fused(packed, fenced_rows(x[:m]), **around.rows(m))
            found = accuracy.error(y, part)
            if reason := accuracy.too_wrong(found, dtype):
                raise CheckFailed(f"M={m}, {what}: {reason}; {where(y, part)}")
            worst = max(worst, found.relative)
            for apart in kernel.ways(m, what):
                again = kernel.fused(packed, fenced_rows(x[:m]), apart=apart, **around.rows(m))
                same(again, y, f"M={m}, {what}, {'apart' if apart else 'taken in'}")
    return f"relative error at most {worst:.1e}"


def check_early(kernel: Implementation, problem: Problem, shape: Shape, batches: list[int]) -> str:
    """Norm, product, residual, over and over, each on what the last one gave, eagerly and in a graph: a kernel that
    starts early must still wait. Both ways to compute the norm, whose kernel starts early too."""
    device, dtype = problem.x.device, problem.x.dtype
    # Scaled so that results stay as large as inputs: 0.175 is the root mean square of the weights.
    scales = (problem.weights.scales.float() / (0.175 * sqrt(shape.k))).half()
    packed = kernel.pack(replace(problem.weights, scales=scales), None, dtype)
    around = surroundings("norm", shape, max(batches), dtype, device)
    for m in batches:
        first, what = problem.x[:m].clone(), around.rows(m)
        for apart in kernel.ways(m, "norm"):

            def chained(m: int = m, apart: bool = apart, x: Tensor = first, what: dict[str, Any] = what) -> Tensor:
                for _ in range(CHAIN):
                    x = kernel.fused(packed, x, apart=apart, **what)
                return x

            right = first
            for _ in range(CHAIN):
                right = kernel.fused(packed, right, apart=apart, **what)
                wait(device)
            same(chained(), right, f"M={m}: a chain of launches")
            if device.type == "cuda":
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    y = chained()
                for _ in range(3):
                    y.fill_(float("nan"))
                    graph.replay()
                    same(y, right, f"M={m}: a chain in a graph")
    return f"{CHAIN} launches, bit-equal"


def make(shape: Shape, batches: list[int], dtype: torch.dtype, device: torch.device, bias: bool, seed: int) -> Problem:
    """Inputs without the outliers' lead: a gate of them would leave nothing but them."""
    problem = random_problem(shape, max(batches), dtype, device, bias=bias, seed=seed)
    return replace(problem, x=problem.x.clamp(-8, 8))
