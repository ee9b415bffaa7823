"""The checks, one function each: an implementation, a case and a device in, a short finding out.

A check raises CheckFailed where its property does not hold and Skipped where it does not apply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench import accuracy, fused_checks
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.outcome import CheckFailed, Skipped
from awqbench.kernelbench.problem import DTYPES, Problem, Shape, exact_problem, random_problem
from awqbench.kernelbench.reference import dense, reference
from awqbench.kernelbench.trials import results, same, views, wait, where

CHAIN = 6  # launches that feed each other


@dataclass(frozen=True)
class Case:
    """One check on one weight, for several numbers of input rows at once."""

    check: str
    shape: Shape
    batches: tuple[int, ...]
    dtype: str = "fp16"
    bias: bool = False
    seed: int = 0

    def __str__(self) -> str:
        rows = f"M={self.batches[0]}" if len(self.batches) == 1 else f"M={self.batches[0]}..{self.batches[-1]}"
        return f"{self.shape} {self.dtype} {rows}{' bias' if self.bias else ''}"


Check = Callable[[Implementation, Case, torch.device], str]


def check_accuracy(kernel: Implementation, case: Case, device: torch.device) -> str:
    """Error bounds against float64, nothing unwritten, nothing written outside, no read past a row of x."""
    dtype = DTYPES[case.dtype]
    batches = _accepted(kernel, case)
    problem = random_problem(case.shape, max(batches), dtype, device, bias=case.bias, seed=case.seed)
    packed = kernel.pack(problem.weights, problem.bias, dtype)
    expected, plain = reference(problem), dense(problem.weights, dtype)
    worst = 0.0
    for m in batches:
        x = problem.x[:m]
        part = expected.rows(m)
        matmul = x @ plain.T if problem.bias is None else torch.addmm(problem.bias, x, plain.T)
        limit = accuracy.error(matmul, part).relative
        for way, y in results(kernel, packed, x, case.shape.n):
            found = accuracy.error(y, part)
            if reason := accuracy.too_wrong(found, dtype, y.numel(), limit):
                raise CheckFailed(f"M={m} ({way}): {reason}; {where(y, part)}")
            worst = max(worst, found.relative)
    return f"relative error at most {worst:.1e}"


def check_one_hot(kernel: Implementation, case: Case, device: torch.device) -> str:
    """Rows of the identity give columns of W, to the bit: the whole layout, element by element."""
    dtype = DTYPES[case.dtype]
    problem = random_problem(case.shape, 1, dtype, device, seed=case.seed)
    packed = kernel.pack(problem.weights, None, dtype)
    expected = dense(problem.weights, dtype)
    k, step = case.shape.k, max(_accepted(kernel, case))
    for start in range(0, k, step):
        columns = torch.arange(start, min(start + step, k), device=device)
        x = torch.zeros(len(columns), k, dtype=dtype, device=device)
        x[torch.arange(len(columns), device=device), columns] = 1
        y = kernel.run(packed, x)
        wrong = (expected[:, columns] != y.T).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            raise CheckFailed(
                f"{len(wrong)} of {y.numel()} weights of columns {start}.. are wrong, first W[{row}, {start + column}]:"
                f" {y[column, row].item():.6g} for {expected[row, start + column].item():.6g}"
            )
    return f"{expected.numel()} weights exact"


def check_exact(kernel: Implementation, case: Case, device: torch.device) -> str:
    """Where the true result is a 16-bit number and no partial sum rounds, it comes out to the bit."""
    dtype = DTYPES[case.dtype]
    batches = _accepted(kernel, case)
    problem = exact_problem(case.shape, max(batches), dtype, device, seed=case.seed)
    packed = kernel.pack(problem.weights, None, dtype)
    expected = reference(problem).y
    for m in batches:
        for way, y in results(kernel, packed, problem.x[:m], case.shape.n):
            if wrong := int((y.double() != expected[:m]).sum()):
                raise CheckFailed(f"M={m} ({way}): {wrong} of {y.numel()} results are not exact")
    return "exact"


def check_repeat(kernel: Implementation, case: Case, device: torch.device) -> str:
    """The same inputs give the same bits in a burst of launches, with another input's between."""
    problem, packed = _packed(kernel, case, device)
    other = torch.randn_like(problem.x)
    for m in _accepted(kernel, case):
        first = kernel.run(packed, problem.x[:m])
        wait(device)
        later = []
        for _ in range(3):
            kernel.run(packed, other[:m])
            later.append(kernel.run(packed, problem.x[:m]))
        for y in later:
            same(y, first, f"M={m}: a later run")
    return "bit-equal"


def check_chain(kernel: Implementation, case: Case, device: torch.device) -> str:
    """A result fed to the next launch at once, eagerly and in a graph: a kernel that starts early must still wait."""
    if case.shape.n != case.shape.k:
        raise ValueError(f"{case.shape} is not square")
    dtype = DTYPES[case.dtype]
    problem = random_problem(case.shape, max(_accepted(kernel, case)), dtype, device, seed=case.seed)
    # Scaled so that results stay as large as inputs: 0.175 is the root mean square of the weights.
    scales = (problem.weights.scales.float() / (0.175 * sqrt(case.shape.k))).half()
    packed = kernel.pack(replace(problem.weights, scales=scales), None, dtype)
    for m in _accepted(kernel, case):
        x = torch.randn(m, case.shape.k, device=device).to(dtype)
        expected = x
        for _ in range(CHAIN):
            expected = kernel.run(packed, expected)
            wait(device)
        same(_chained(kernel, packed, x), expected, f"M={m}: a chain of launches")
        if device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = _chained(kernel, packed, x)
            for _ in range(3):
                graph.replay()
                same(y, expected, f"M={m}: a chain in a graph")
    return f"{CHAIN} launches, bit-equal"


def check_strides(kernel: Implementation, case: Case, device: torch.device) -> str:
    """Inputs that are not contiguous give the bits of their contiguous copies."""
    problem, packed = _packed(kernel, case, device)
    for m in _accepted(kernel, case):
        x = problem.x[:m]
        whole = kernel.run(packed, x)
        for what, view in views(x).items():
            same(kernel.run(packed, view), whole, f"M={m}, {what}")
    return "bit-equal"


def check_empty(kernel: Implementation, case: Case, device: torch.device) -> str:
    """No rows in, no rows out, and no launch that fails."""
    problem, packed = _packed(kernel, case, device)
    y = kernel.run(packed, problem.x[:0])
    if y.shape != (0, case.shape.n) or y.dtype != problem.x.dtype:
        raise CheckFailed(f"M=0 gives {tuple(y.shape)} of {y.dtype}")
    kernel.run(packed, problem.x)  # a failed launch of no blocks would surface here
    wait(device)
    return "empty"


def check_round_trip(kernel: Implementation, case: Case, device: torch.device) -> str:
    """Packing loses nothing: the same codes, scales and zero points come back."""
    problem, packed = _packed(kernel, case, device)
    back = kernel.unpack(packed)
    if back is None:
        raise Skipped("its layout has no way back")
    for name in ("codes", "scales", "zeros"):
        if not torch.equal(getattr(back, name), getattr(problem.weights, name)):
            raise CheckFailed(f"{name} are not the same after packing and unpacking")
    return "lossless"


def check_graph(kernel: Implementation, case: Case, device: torch.device) -> str:
    """A CUDA graph replayed with other inputs gives what eager runs give, time after time."""
    if device.type != "cuda":
        raise Skipped("CUDA graphs need a GPU")
    problem, packed = _packed(kernel, case, device)
    for m in _accepted(kernel, case):
        inputs = [problem.x[:m], -problem.x[:m].flip(1), problem.x[:m]]
        expected = [kernel.run(packed, x) for x in inputs]
        held = inputs[0].clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            kernel.run(packed, held)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = kernel.run(packed, held)
        for x, right in zip(inputs, expected, strict=True):
            held.copy_(x)
            y.fill_(float("nan"))
            graph.replay()
            same(y, right, f"M={m}: a replay")
    return "bit-equal"


def check_streams(kernel: Implementation, case: Case, device: torch.device) -> str:
    """Two streams at once, on different problems, do not disturb each other."""
    if device.type != "cuda":
        raise Skipped("streams need a GPU")
    first, packed = _packed(kernel, case, device)
    second = random_problem(case.shape, len(first.x), first.x.dtype, device, bias=case.bias, seed=case.seed + 1)
    weights = packed, kernel.pack(second.weights, second.bias, first.x.dtype)
    streams = [torch.cuda.Stream() for _ in weights]  # type: ignore[no-untyped-call]
    for m in _accepted(kernel, case):
        pairs = list(zip(weights, (first.x[:m], second.x[:m]), strict=True))
        expected = [kernel.run(weight, x) for weight, x in pairs]
        torch.cuda.synchronize()
        found: list[list[Tensor]] = [[], []]
        for _ in range(20):
            for stream, (weight, x), kept in zip(streams, pairs, found, strict=True):
                with torch.cuda.stream(stream):
                    kept.append(kernel.run(weight, x))
        torch.cuda.synchronize()
        for kept, right in zip(found, expected, strict=True):
            for y in kept:
                same(y, right, f"M={m}: a run beside another stream")
    return "bit-equal"


def check_taken_in(kernel: Implementation, case: Case, device: torch.device) -> str:
    """A norm or a gate of the inputs and a residual of the results, as one call: fused_checks."""
    return fused_checks.check_taken_in(kernel, *_surrounded(kernel, case, device))


def check_early(kernel: Implementation, case: Case, device: torch.device) -> str:
    """Such calls in a chain, each of which may begin before the one in front of it has ended: fused_checks."""
    return fused_checks.check_early(kernel, *_surrounded(kernel, case, device))


CHECKS: dict[str, Check] = {
    "round-trip": check_round_trip,
    "one-hot": check_one_hot,
    "exact": check_exact,
    "accuracy": check_accuracy,
    "repeat": check_repeat,
    "chain": check_chain,
    "taken-in": check_taken_in,
    "early": check_early,
    "strides": check_strides,
    "empty": check_empty,
    "graph": check_graph,
    "streams": check_streams,
}


def _chained(kernel: Implementation, packed: Any, x: Tensor) -> Tensor:
    for _ in range(CHAIN):
        x = kernel.run(packed, x)
    return x


def _surrounded(kernel: Implementation, case: Case, device: torch.device) -> tuple[Problem, Shape, list[int]]:
    if not kernel.takes_in:
        raise Skipped("takes nothing in")
    batches = _accepted(kernel, case)
    problem = fused_checks.make(case.shape, batches, DTYPES[case.dtype], device, case.bias, case.seed)
    return problem, case.shape, batches


def _packed(kernel: Implementation, case: Case, device: torch.device) -> tuple[Problem, Any]:
    dtype = DTYPES[case.dtype]
    rows = max(_accepted(kernel, case))
    problem = random_problem(case.shape, rows, dtype, device, bias=case.bias, seed=case.seed)
    return problem, kernel.pack(problem.weights, problem.bias, dtype)


def _accepted(kernel: Implementation, case: Case) -> list[int]:
    """The numbers of rows the kernel takes; Skipped where it takes none."""
    reasons = {m: kernel.refusal(case.shape, m, DTYPES[case.dtype]) for m in case.batches}
    taken = [m for m, reason in reasons.items() if reason is None]
    if not taken:
        raise Skipped(next(iter(reasons.values())) or "no rows")
    return taken
