"""How each block of a model is called, and what the first one receives, with none of the blocks in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from awqbench.errors import UserError
from awqbench.modeling.weights import Weights
from awqbench.quantization.calibrate import BlockCall, BlockCalls, equal_batches

STRETCH_TOKENS = 16  # what scale groups are found and proved on


class _Stop(Exception):
    """Raised in the last block to leave the model's forward before its output head."""


@torch.no_grad()
def capture_calls(
    model: PreTrainedModel, weights: Weights, stack: str, ids: Tensor, emit: Callable[[Tensor], None], device: str
) -> list[BlockCalls]:
    """Run windows of token ids [windows, seq_len] up to the blocks called `stack`.0, `stack`.1 ...

    `emit` receives the first block's input of each batch, [batch, seq_len, width]. The blocks themselves stay on the
    meta device: they are replaced by stand-ins that hand on what they are given, since the arguments beside the hidden
    state (positions, masks) must not depend on it. Raises UserError where they do, or where the blocks do not run one
    after another.
    """
    blocks = list(model.get_submodule(stack).children())
    with _outer_modules_on_demand(model, weights, stack, device):
        example = _output_example(model, weights, f"{stack}.0", blocks, ids[:1, :STRETCH_TOKENS].to(device))
        recorder = _Recorder(blocks, example)
        with recorder:
            calls = []
            for index, batch in enumerate(equal_batches(ids)):
                hidden, found = recorder.run(model, batch.to(device))
                if hidden.dim() != 3:
                    raise UserError(
                        f"{type(model).__name__} hands its blocks {hidden.dim()}-dimensional states"
                        " (allowed: batch, tokens, width)"
                    )
                emit(hidden)
                if index == 0:
                    calls = found
                elif not all(_same(a, b) for a, b in zip(calls, found, strict=True)):
                    raise UserError(
                        f"{type(model).__name__} hands its blocks more of the text than their hidden state:"
                        " it cannot be calibrated block by block"
                    )
            _, stretch = recorder.run(model, ids[:1, :STRETCH_TOKENS].to(device))
            _, single = recorder.run(model, ids[:1, :1].to(device))
    return [BlockCalls(*each) for each in zip(calls, stretch, single, strict=True)]


class _Recorder:
    """Replaces the blocks' forward functions and notes their arguments."""

    def __init__(self, blocks: Sequence[nn.Module], example: Any) -> None:
        self._blocks, self._example = blocks, example
        self._seen: list[tuple[Tensor, BlockCall]] = []

    def __enter__(self) -> None:
        for index, block in enumerate(self._blocks):
            block.forward = self._stand_in(index)

    def __exit__(self, *_: object) -> None:
        for block in self._blocks:
            del block.forward

    def run(self, model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, list[BlockCall]]:
        """The first block's input for `ids` [batch, tokens], and how each block was called."""
        self._seen = []
        _run(model, ids)
        if len(self._seen) != len(self._blocks):
            raise UserError(
                f"{type(model).__name__} does not run its {len(self._blocks)} blocks one after another:"
                " it cannot be calibrated block by block"
            )
        return self._seen[0][0], [call for _, call in self._seen]

    def _stand_in(self, index: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden, args = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
            if len(self._seen) == index:  # a block that runs twice, or out of order, is told by the count
                self._seen.append((hidden, BlockCall(args, kwargs)))
            if index == len(self._blocks) - 1:
                raise _Stop
            if isinstance(self._example, Tensor):
                return hidden
            return (hidden, *self._example[1:])

        return forward


def _output_example(
    model: PreTrainedModel, weights: Weights, name: str, blocks: Sequence[nn.Module], ids: Tensor
) -> Any:
    """What a block returns, a tensor or a tuple: from one run of the first block."""
    outputs: list[Any] = []

    def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(output)
        raise _Stop

    weights.load(name, ids.device)
    handle = blocks[0].register_forward_hook(keep)
    try:
        _run(model, ids)
    finally:
        handle.remove()
        weights.release(name)
    if not outputs:
        raise UserError(f"{type(model).__name__} does not run {name}: it cannot be calibrated block by block")
    return outputs[0]


@contextmanager
def _outer_modules_on_demand(model: PreTrainedModel, weights: Weights, stack: str, device: str) -> Iterator[None]:
    """Give modules outside the blocks their weights when they first run, and take them away at the end."""
    loaded: list[str] = []
    handles = []

    def load(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
                weights.load(name, device, recurse=False)
                loaded.append(name)

        return hook

    for name, module in model.named_modules():
        outside = not f"{name}.".startswith(f"{stack}.")
        if outside and name and next(module.parameters(recurse=False), None) is not None:
            handles.append(module.register_forward_pre_hook(load(name)))
        elif outside and next(module.children(), None) is None:
            module.to(device)  # rotary frequencies and the like
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name in loaded:
            weights.release(name)


def _run(model: PreTrainedModel, ids: Tensor) -> None:
    try:
        model(input_ids=ids, use_cache=False)
    except _Stop:
        return


def _same(one: Any, other: Any) -> bool:
    """Equality that looks into tensors, and takes objects of unknown kinds for equal if they are of one type."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(torch.equal(one, other))
    if isinstance(one, BlockCall) and isinstance(other, BlockCall):
        return _same(one.args, other.args) and _same(one.kwargs, other.kwargs)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other)
