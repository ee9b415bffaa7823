"""Watch one forward of a block: which modules read the same tensor, and which module made it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from awqbench.modeling.experts import Expert, Experts
from awqbench.quantization.blocks import is_linear
from awqbench.quantization.calibrate import BlockCall

Key = tuple[int, int]


@dataclass(slots=True)
class Reading:
    """The modules that read one tensor, and those that made it.

    `routed` are sets of modules that see some rows of it only: an expert sees the tokens that the router sends to it.
    """

    whole: list[str] = field(default_factory=list)
    routed: list[list[str]] = field(default_factory=list)
    makers: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """All readers."""
        return [*self.whole, *(name for names in self.routed for name in names)]


@dataclass(slots=True)
class Trace:
    """What happened, in the order in which it ran; names are relative to the block."""

    readings: list[Reading] = field(default_factory=list)
    order: list[str] = field(default_factory=list)  # of the linears outside experts
    experts: dict[str, Tensor] = field(default_factory=dict)  # their input [tokens, width], by the experts' name


def trace_block(block: nn.Module, call: BlockCall, hidden: Tensor) -> Trace:
    """Run the block once and note what every module with a weight [out, in] read and what every leaf module returned.

    A reshaped view counts as the same tensor (OPT flattens its tokens before the MLP). Unfused experts read the tensor
    that is handed to all of them, whether or not a token reaches them.
    """
    trace = Trace()
    readings: dict[Key, Reading] = {}
    makers: dict[Key, list[str]] = {}
    alive: list[Any] = []  # no address may be given out twice: a tensor is known by its address and number of elements
    seen: set[str] = set()

    def reading(name: str, tensor: Tensor) -> Reading:
        seen.add(name)
        alive.append(tensor)
        return readings.setdefault(_key(tensor), Reading())

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, Experts):
            if name not in seen:
                trace.experts[name] = inputs[0].reshape(-1, inputs[0].shape[-1])
                reading(name, inputs[0]).routed += experts_readers(name, module)
        elif name not in seen and inputs and _reads_channels(module, inputs[0]):
            reading(name, inputs[0]).whole.append(name)
            if is_linear(module):
                trace.order.append(name)
        if isinstance(output, Tensor):
            alive.append(output)
            makers.setdefault(_key(output), []).append(name)

    inside = tuple(f"{name}." for name, module in block.named_modules() if isinstance(module, Experts))
    handles = []
    for name, module in block.named_modules():
        if not name.startswith(inside) and _watched(module):

            def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any, name: str = name) -> None:
                note(name, module, inputs, output)

            handles.append(module.register_forward_hook(hook))
    try:
        call(block, hidden)
    finally:
        for handle in handles:
            handle.remove()
    for key, found in readings.items():
        found.makers = makers.get(key, [])
        trace.readings.append(found)
    return trace


def experts_readers(name: str, experts: Experts) -> list[list[str]]:
    """For each expert of the module `name`, its linears that read what is handed to the experts."""
    return [
        [f"{name}.{index}.{reader}" for reader in cast(Expert, expert).readers]
        for index, expert in experts.named_children()
    ]


def _watched(module: nn.Module) -> bool:
    leaf = next(module.children(), None) is None
    return leaf or isinstance(module, Experts) or _matrix(module) is not None


def _reads_channels(module: nn.Module, value: Any) -> bool:
    weight = _matrix(module)
    if weight is None or not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    return value.shape[-1] == weight.shape[1]


def _matrix(module: nn.Module) -> Tensor | None:
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, nn.Parameter) and weight.dim() == 2 else None


def _key(tensor: Tensor) -> Key:
    return tensor.data_ptr(), tensor.numel()
