"""Blocks quantized one after another, or by several processes at once.

A block needs no other one's result, only the full-precision hidden states, which the block before it writes early: long
before it is done with its search. So block after block starts as soon as its input is on disk.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property

import torch

from awqbench.errors import UserError
from awqbench.modeling.experts import unfuse_experts
from awqbench.quantization.blocks import linears_of, untranspose
from awqbench.quantization.blockwise import Block
from awqbench.quantization.calibrate import BlockCalls
from awqbench.quantization.capture import capture_calls
from awqbench.quantization.memory import give_back, hold_freed
from awqbench.quantization.settle import Job, Plan, settle
from awqbench.quantization.workspace import Workspace

Progress = Callable[[int, int, str], None]

_POLL_SECONDS = 0.05
_BLOCKS_AT_ONCE = 4  # before freed memory goes back: what a block leaves is small, clearing its pages anew is not


class BlockWorker:
    """Quantizes single blocks of a plan into a workspace."""

    def __init__(self, plan: Plan, workspace: Workspace) -> None:
        self._plan, self._workspace = plan, workspace
        hold_freed()

    def run(self, index: int) -> None:
        """Quantize block `index`, whose input is in the workspace, and make the result durable."""
        plan, job, workspace = self._plan, self._plan.job, self._workspace
        weights, prefix = plan.storage.weights, f"{plan.stack}.{index}"
        calls = self._calls[index] if job.windows else None  # before the block's weights are there: it runs the first
        weights.load(prefix, job.device)
        module = weights.model.get_submodule(prefix)
        for name, parameter in module.named_parameters(prefix):
            if not parameter.isfinite().all():
                kind = str(job.dtype).removeprefix("torch.")
                raise UserError(f"{name} of {job.model_dir} holds values that are not finite in {kind}")
        transposed = {f"{prefix}.{name}" for name in untranspose(module)}
        unfuse_experts(module)
        names = [name for name in linears_of(module, "") if f"{prefix}.{name}" not in plan.kept]
        block = Block(module, prefix, names, job.recipe, overrides=plan.overrides, sensitivity=job.mixing.wanted)
        if calls is None:
            result = block.round_to_nearest()
        else:
            hidden = workspace.hidden(index)
            hidden.device = job.device
            with workspace.hidden_writer(index + 1) as emit:
                result = block.calibrated(calls, hidden, emit)
        tensors, record = plan.storage.block(prefix, result, transposed)
        workspace.save_block(index, tensors, record)
        weights.release(prefix)
        del block, result, tensors
        if index % _BLOCKS_AT_ONCE == _BLOCKS_AT_ONCE - 1:
            give_back()

    def prepare(self) -> None:
        """Write what the first block receives."""
        assert self._calls

    @cached_property
    def _calls(self) -> list[BlockCalls]:
        """How each block is called; what the first block receives is written where it isn't there yet."""
        plan, windows = self._plan, self._plan.job.windows
        assert windows is not None
        arguments = plan.storage.weights.model, plan.storage.weights, plan.stack, windows.ids
        if self._workspace.received(0):
            return capture_calls(*arguments, lambda _: None, plan.job.device)
        with self._workspace.hidden_writer(0) as emit:
            return capture_calls(*arguments, emit, plan.job.device)


def quantize_blocks(
    plan: Plan, workspace: Workspace, *, workers: int, threads: int, progress: Progress | None = None
) -> None:
    """Quantize the blocks that are not finished, here or in `workers` processes, each with `threads` threads.

    The result does not depend on the number of workers, but it may on the number of threads, by the order in which they
    sum. Raises UserError when a worker is killed; what is finished stays.
    """
    missing = workspace.missing(plan.blocks)
    worker = BlockWorker(plan, workspace)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if workers > 1 and len(missing) > 1:
            if plan.job.windows is not None and not workspace.received(0):
                worker.prepare()
            _in_processes(plan, workspace, missing, workers, threads, progress)
            return
        for index in missing:
            if progress:
                progress(index, plan.blocks, f"{plan.stack}.{index}")
            worker.run(index)
    finally:
        torch.set_num_threads(before)


def _in_processes(
    plan: Plan, workspace: Workspace, missing: list[int], workers: int, threads: int, progress: Progress | None
) -> None:
    context = multiprocessing.get_context("spawn")
    pending: dict[Future[None], int] = {}
    waiting = list(missing)
    with ProcessPoolExecutor(workers, context, _prepare, (plan.job, workspace, threads)) as pool:
        try:
            while waiting or pending:
                while waiting and len(pending) < workers and (not plan.job.windows or workspace.received(waiting[0])):
                    pending[pool.submit(_run, waiting[0])] = waiting[0]
                    waiting.pop(0)
                for future in wait(pending, _POLL_SECONDS, FIRST_COMPLETED).done:
                    index = pending.pop(future)
                    future.result()
                    if progress:
                        progress(plan.blocks - len(waiting) - len(pending), plan.blocks, f"{plan.stack}.{index}")
        except BrokenProcessPool:
            raise UserError(
                "a process that quantized blocks was killed (out of memory?); finished blocks are kept"
                " (allowed: --resume, with fewer --workers)"
            ) from None


_worker: BlockWorker | None = None


def _prepare(job: Job, workspace: Workspace, threads: int) -> None:
    global _worker
    from awqbench.worker.guard import die_with_parent

    die_with_parent()
    logging.disable(logging.WARNING)  # warnings come with the blocks' records; the first process has said the others
    torch.set_num_threads(threads)
    _worker = BlockWorker(settle(job), workspace)


def _run(index: int) -> None:
    assert _worker is not None
    _worker.run(index)
