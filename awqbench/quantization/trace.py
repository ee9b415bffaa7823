"""Watch one forward of a block: which linears read the same tensor, and which module made it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from awqbench.quantization.calibrate import BlockCall

Key = tuple[int, int]


@dataclass(slots=True)
class Trace:
    """What happened, in the order in which the linears ran; names are relative to the block."""

    readers: dict[Key, list[str]] = field(default_factory=dict)
    makers: dict[Key, list[str]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    # Held so that no address is given out twice: a tensor is known by its address and its number of elements.
    alive: list[Any] = field(default_factory=list)


def trace_block(block: nn.Module, call: BlockCall, hidden: Tensor) -> Trace:
    """Run the block once and note every linear's input and every leaf module's output.

    A reshaped view counts as the same tensor (OPT flattens its tokens before the MLP).
    """
    trace = Trace()

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        trace.alive += [inputs, output]
        if isinstance(module, nn.Linear) and inputs and name not in trace.order:
            trace.order.append(name)
            trace.readers.setdefault(_key(inputs[0]), []).append(name)
        if isinstance(output, Tensor):
            trace.makers.setdefault(_key(output), []).append(name)

    handles = []
    for name, module in block.named_modules():
        if next(module.children(), None) is None:

            def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any, name: str = name) -> None:
                note(name, module, inputs, output)

            handles.append(module.register_forward_hook(hook))
    try:
        call(block, hidden)
    finally:
        for handle in handles:
            handle.remove()
    return trace


def _key(tensor: Tensor) -> Key:
    return tensor.data_ptr(), tensor.numel()
