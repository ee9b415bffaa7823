"""Which cases are checked, the most telling first, so that a short budget still says most."""

from __future__ import annotations

from collections.abc import Iterator

from awqbench.errors import unknown_choice
from awqbench.kernelbench.attention_checks import ATTENTION
from awqbench.kernelbench.checks import CHECKS, Case
from awqbench.kernelbench.problem import Shape
from awqbench.kernelbench.shapes import BATCHES, MODELS, ODD_N, SHARDS, fitting_groups

SMALL = (1, 2, 8, 9, 16, 17, 33, 64)
MANY = (65, 97, 129, 257)  # past the kernels for few rows
BOTH = ("fp16", "bf16")
SANITIZER = "sanitizer"


def small_cases() -> Iterator[Case]:
    """Seconds on a GPU, and enough to find any wrong index: also what the sanitizers run, and the CPU."""
    for group in (128, 32, 64, 256):
        shape = Shape(200, 256, group)
        yield Case("round-trip", shape, (1,))
        for dtype in BOTH:
            yield Case("one-hot", shape, (16,), dtype)
            yield Case("one-hot", shape, (128,), dtype)
            yield Case("exact", shape, (*SMALL, 97, 257), dtype)
            yield Case("accuracy", shape, (*SMALL, 97, 257), dtype, bias=group == 32)
    for n in ODD_N[:3]:
        yield Case("accuracy", Shape(n, 96, 32), (*SMALL, 97, 257), bias=True)  # one and a half tiles of k
        yield Case("one-hot", Shape(n, 96, 96), (8,))
    for check in ("repeat", "strides", "empty", "graph", "streams"):
        yield Case(check, Shape(192, 512, 128), (1, 8, 17, 64, 65, 257))
        yield Case(check, Shape(72, 352, 32), (3, 33, 129), "bf16", bias=check not in {"streams"})
    yield Case("chain", Shape(320, 320, 64), (1, 8, 17, 64, 129))
    for group, dtype in ((128, "fp16"), (32, "bf16"), (256, "bf16")):
        yield Case("taken-in", Shape(200, 256, group), (1, 2, 8, 9, 17, 64), dtype, bias=group == 32)
    yield Case("taken-in", Shape(24, 96, 32), (1, 8, 33))
    yield Case("early", Shape(320, 320, 64), (1, 4, 8, 17, 64))


def middle_cases() -> Iterator[Case]:
    """Shapes large enough for every way of splitting the work, with every number of rows."""
    for dtype in BOTH:
        for group in (128, 32, 64, 4096):
            yield Case("accuracy", Shape(4096, 4096, group), BATCHES, dtype)
    yield Case("one-hot", Shape(1024, 4096, 128), (64,))
    for check in ("repeat", "graph", "streams"):
        yield Case(check, Shape(4096, 4096, 128), (1, 2, 8, 16, 17, 32, 64, 128, 512))
        yield Case(check, Shape(6144, 4096, 32), (1, 16, 64, 256), "bf16")
    yield Case("chain", Shape(4096, 4096, 128), (1, 8, 16, 33, 64, 257))
    for dtype in BOTH:
        yield Case("early", Shape(4096, 4096, 128), (1, 2, 8, 16, 33, 64), dtype)
        yield Case("taken-in", Shape(4096, 4096, 128), (1, 2, 4, 8, 16, 33, 64), dtype)
    for n in ODD_N:
        for k in (64, 192, 33 * 32, 4096):
            for group in fitting_groups(k)[:1]:
                yield Case("accuracy", Shape(n, k, group), BATCHES, bias=True)
    for n, k in SHARDS:
        for group in fitting_groups(k):
            yield Case(
                "accuracy", Shape(n, k, group), (*SMALL, *MANY), "bf16" if group == 64 else "fp16", bias=group == 32
            )


def large_cases() -> Iterator[Case]:
    """The layers that are timed, and a vocabulary."""
    for model in MODELS.values():
        for n, k in model.values():
            yield Case("accuracy", Shape(n, k, 128), (1, 7, 16, 33, 64, 257))
            yield Case("taken-in", Shape(n, k, 128), (1, 8, 65))
            yield Case("repeat", Shape(n, k, 128), (1, 16, 64, 129, 512), "bf16")
    yield Case("accuracy", Shape(151936, 4096, 128), (1, 64), "bf16")
    for n, k in MODELS["llama3-8b"].values():
        for dtype in BOTH:
            yield Case("accuracy", Shape(n, k, 32), BATCHES, dtype, bias=True)


def all_cases(quick: bool = False, only: str | None = None) -> list[Case]:
    """The cases in order; `only` keeps some checks, by name, comma-separated. UserError for an unknown name.

    `sanitizer` is a name too, of what is no case: check_command.check_rows.
    """
    wanted = [name.strip() for name in only.split(",")] if only else list(CHECKS)
    for name in wanted:
        if name not in {*CHECKS, *ATTENTION, SANITIZER}:
            raise unknown_choice("check", name, [*CHECKS, *ATTENTION, SANITIZER])
    cases = [*small_cases()] if quick else [*small_cases(), *middle_cases(), *large_cases()]
    return [case for case in dict.fromkeys(cases) if case.check in wanted]  # two models share a layer


def tiny_cases() -> Iterator[Case]:
    """What compute-sanitizer watches, at a hundredth of the speed: ragged edges, every dtype, few rows and many."""
    for shape in (Shape(72, 352, 32), Shape(200, 256, 128), Shape(64, 96, 96)):
        for dtype in BOTH:
            yield Case("accuracy", shape, (1, 9, 64, 65, 129), dtype, bias=dtype == "fp16")
    yield Case("taken-in", Shape(72, 352, 32), (1, 8, 17), "bf16")
