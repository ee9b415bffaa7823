"""Checks of the attention kernel: rows like those of the products, in the same processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from awqbench.kernelbench import accuracy
from awqbench.kernelbench.attention import MODELS, Contender, Heads, Ours, Step, expected, random_step
from awqbench.kernelbench.outcome import CheckFailed
from awqbench.kernelbench.problem import DTYPES
from awqbench.kernelbench.reference import Reference
from awqbench.kernelbench.trials import same, wait, where

STEPS = 5  # of a replayed graph


@dataclass(frozen=True)
class AttentionCase:
    """One check on one problem."""

    check: str
    sizes: Heads
    dtype: str = "fp16"

    def __str__(self) -> str:
        return f"{self.sizes} {self.dtype}"


def check_attention(kernel: Contender, case: AttentionCase, device: torch.device) -> str:
    """Error bounds against float64; the new key and value stored, and nothing else in the cache changed; nothing read
    that must not be seen."""
    step = random_step(case.sizes, DTYPES[case.dtype], device)
    right, before = expected(step), step.copy()
    if device.type == "cuda":  # the allocator hands the output the block that is freed here
        torch.full_like(right.y, float("nan"), dtype=step.qkv.dtype)
    y = kernel.run(step)
    # A weighted mean of values has no terms larger than they are, so its spread is that of one value.
    reference = Reference(right.y, torch.full_like(right.y, 1 / accuracy.ROOM))
    found = accuracy.error(y, reference)
    if reason := accuracy.too_wrong(found, y.dtype):
        raise CheckFailed(f"{reason}; {where(y, reference)}")
    _stored(step, before, right.key)
    return f"relative error {found.relative:.1e}"


def check_bits(kernel: Contender, case: AttentionCase, device: torch.device) -> str:
    """The same bits in a burst of launches with others between, and beside another stream."""
    step = random_step(case.sizes, DTYPES[case.dtype], device)
    other = random_step(replace(case.sizes, context=case.sizes.context // 2), DTYPES[case.dtype], device, seed=1)
    first = kernel.run(step)
    wait(device)
    later = []
    for _ in range(3):
        kernel.run(other)
        later.append(kernel.run(step))
    for y in later:
        same(y, first, "a later run")
    if device.type != "cuda":
        return "bit-equal"
    streams = [torch.cuda.Stream() for _ in range(2)]  # type: ignore[no-untyped-call]
    copies, found = [step.copy() for _ in streams], []
    torch.cuda.synchronize()
    for _ in range(20):
        for stream, each in zip(streams, copies, strict=True):
            with torch.cuda.stream(stream):
                found.append(kernel.run(each))
    torch.cuda.synchronize()
    for y in found:
        same(y, first, "a run beside another stream")
    return "bit-equal"


def check_steps(kernel: Contender, case: AttentionCase, device: torch.device) -> str:
    """Three layers, each fed by the one before at once, and then the next step: a kernel that starts early must still
    wait. Eagerly, and as a graph that is captured once and replayed as the length grows."""
    dtype = DTYPES[case.dtype]
    sizes = replace(case.sizes, capacity=case.sizes.context + STEPS)
    layers = [replace(random_step(sizes, dtype, device, seed, unseen=0.5), padding=None) for seed in range(3)]
    length = layers[0].length
    layers = [replace(layer, length=length) for layer in layers]

    def token(check: bool) -> Tensor:
        y = layers[0].qkv[:, : sizes.heads * sizes.size]
        for layer in layers:
            layer.qkv[:, : y.shape[1]] = y
            y = kernel.run(layer)
            if check:
                wait(device)
        length.add_(1)
        return y

    start = [layer.qkv.clone() for layer in layers]

    def again() -> None:
        length.fill_(case.sizes.context)
        for layer, qkv in zip(layers, start, strict=True):
            layer.qkv.copy_(qkv)

    right = [token(check=True) for _ in range(STEPS)]
    again()
    _same_steps([token(check=False) for _ in range(STEPS)], right, "a chain of launches")
    if device.type != "cuda":
        return f"{STEPS} steps, bit-equal; no graph"
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    again()
    with torch.cuda.stream(side):
        token(check=False)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        y = token(check=False)
    again()
    found = []
    for _ in range(STEPS):
        graph.replay()
        found.append(y.clone())
    _same_steps(found, right, "a replayed graph")
    return f"{STEPS} steps, bit-equal"


AttentionCheck = Callable[[Contender, AttentionCase, torch.device], str]
ATTENTION: dict[str, AttentionCheck] = {
    "attention": check_attention,
    "attention-bits": check_bits,
    "attention-steps": check_steps,
}


def small_cases() -> Iterator[AttentionCase]:
    """Every head size, one to 20 query heads per key head, borders of slices and tiles, all options."""
    for size, group in ((128, 4), (64, 1), (80, 7), (96, 8), (256, 2), (72, 16), (8, 20)):
        for dtype in ("fp16", "bf16"):
            yield AttentionCase("attention", Heads(2 * group, 2, size, 2, 200, 256), dtype)
    for context in (0, 1, 15, 16, 31, 32, 33, 511, 512, 513, 1022):
        yield AttentionCase("attention", Heads(32, 8, 128, 1, context, 1024))
    yield AttentionCase("attention", Heads(8, 2, 96, 3, 100, 128, rotary=24, padding=40, norms=True), "bf16")
    yield AttentionCase("attention", Heads(16, 4, 128, 2, 300, 512, window=100, cap=50.0, norms=True))
    for check in ("attention-bits", "attention-steps"):
        yield AttentionCase(check, Heads(32, 8, 128, 1, 700, 1024))
        yield AttentionCase(check, Heads(28, 4, 128, 3, 33, 128), "bf16")


def large_cases() -> Iterator[AttentionCase]:
    """The sizes that are timed, and larger batches."""
    for heads, key_heads, size in MODELS.values():
        for context, batch in ((1024, 8), (8192, 1), (2048, 64)):
            yield AttentionCase("attention", Heads(heads, key_heads, size, batch, context, context + 128))
            yield AttentionCase("attention-bits", Heads(heads, key_heads, size, batch, context, context + 128), "bf16")


def tiny_cases() -> Iterator[AttentionCase]:
    """What compute-sanitizer watches."""
    yield AttentionCase("attention", Heads(8, 2, 72, 2, 70, 96, rotary=24, padding=7, norms=True))
    yield AttentionCase("attention", Heads(12, 1, 128, 1, 150, 160), "bf16")


def attention_items(quick: bool, tiny: bool, only: str | None) -> list[tuple[Contender, AttentionCase]]:
    """The kernel with its cases, small ones with and without an early start; `only` as for the products."""
    wanted = {name.strip() for name in only.split(",")} if only else set(ATTENTION)
    early, plain = Ours("attend", overlap=True), Ours("attend/plain", overlap=False)
    cases = [*tiny_cases()] if tiny else [*small_cases()]
    items = [(kernel, case) for kernel in (early, plain) for case in cases]
    items += [] if tiny or quick else [(early, case) for case in large_cases()]
    return [(kernel, case) for kernel, case in items if case.check in wanted]


def _stored(step: Step, before: Step, key: Tensor) -> None:
    sizes, place = step.sizes, step.sizes.context
    value = step.qkv.view(sizes.batch, -1, sizes.size)[:, sizes.heads + sizes.key_heads :]
    same(step.values[:, :, place], value, "the value in the cache")
    unit = accuracy.UNIT[step.qkv.dtype]
    off = (step.keys[:, :, place].double() - key).abs() - 1.01 * unit * key.abs() - 1e-5
    if not bool((off <= 0).all()):
        raise CheckFailed(f"the key in the cache is off by {off.max().item():.3g} too much")
    for what in ("keys", "values"):
        found, old = (getattr(each, what).clone() for each in (step, before))
        found[:, :, place] = old[:, :, place] = 0
        same(found, old, f"the rest of the {what}")


def _same_steps(found: list[Tensor], right: list[Tensor], what: str) -> None:
    for number, (y, expected_y) in enumerate(zip(found, right, strict=True)):
        if bool(expected_y.isnan().any()):
            raise CheckFailed(f"step {number} is NaN")
        same(y, expected_y, f"{what}, step {number},")
