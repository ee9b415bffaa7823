"""Carrying checks out one after another; what fails is a row and never stops the rest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from awqbench.kernelbench.attention import Contender
from awqbench.kernelbench.attention_checks import ATTENTION, AttentionCase, attention_items
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.cases import all_cases, large_cases, tiny_cases
from awqbench.kernelbench.checks import CHECKS, Case
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.outcome import CheckFailed, Row, Skipped

log = logging.getLogger(__name__)

Item = tuple[Implementation, Case] | tuple[Contender, AttentionCase]


def items(
    kernels: Sequence[Implementation], *, quick: bool = False, tiny: bool = False, only: str | None = None
) -> list[Item]:
    """Kernels with their cases: all kernels on small shapes, attention, the first kernel, which runs by default, on
    every shape, then its variants on every shape but the layers of models."""
    cases = list(tiny_cases()) if tiny else all_cases(quick, only)
    small = set(cases) if tiny else set(all_cases(quick=True, only=only))
    last = set(large_cases()) - small
    first, *variants = kernels
    return [
        *((kernel, case) for kernel in kernels for case in cases if case in small),
        *attention_items(quick, tiny, only),
        *((first, case) for case in cases if case not in small),
        *((kernel, case) for kernel in variants for case in cases if case not in small and case not in last),
    ]


def carry_out(kernel: Implementation | Contender, case: Case | AttentionCase, device: torch.device) -> Row:
    """One check as a row. Whatever goes wrong is in the row, Ctrl-C excepted."""
    began = time.monotonic()
    checks: Mapping[str, Callable[[Any, Any, torch.device], str]] = {**CHECKS, **ATTENTION}
    try:
        status, detail = "pass", checks[case.check](kernel, case, device)
        if device.type == "cuda":
            torch.cuda.synchronize()
    except CheckFailed as failure:
        status, detail = "fail", str(failure)
    except Skipped as reason:
        status, detail = "skip", str(reason)
    except Exception as failure:
        log.warning("%s %s %s", kernel.name, case.check, case, exc_info=True)
        status, detail = "error", f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
    return Row(kernel.name, case.check, str(case), status, detail, round(time.monotonic() - began, 3))  # type: ignore[arg-type]


def run_here(work: Sequence[Item], device: torch.device, budget: Budget) -> Iterator[Row]:
    """The rows of all items that the budget reaches, in this process."""
    for kernel, case in work:
        if budget.spent():
            return
        yield carry_out(kernel, case, device)


def device_lost(device: torch.device) -> bool:
    """Whether a kernel broke this process's CUDA context, so that everything after it would fail."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize()
        torch.zeros(1, device=device).item()
    except Exception:
        return True
    return False
