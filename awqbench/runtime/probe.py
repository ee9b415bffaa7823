"""What a module computes, found by asking it: candidates are tried on numbers, names decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu-tanh": partial(functional.gelu, approximate="tanh"),
    "gelu": functional.gelu,
    "relu": functional.relu,
}


class NotDescribed(Exception):
    """The model is none that this runtime computes; the message says what differs."""


def norm_weight(module: Any, name: str) -> tuple[Tensor, float]:
    """The weight by which an RMS norm multiplies (w, or 1 + w as Gemma has it), float32 [size], and its epsilon."""
    eps = next((float(found) for key in ("variance_epsilon", "eps") if (found := getattr(module, key, None))), None)
    weight = getattr(module, "weight", None)
    if eps is None or weight is None or getattr(module, "bias", None) is not None:
        raise NotDescribed(f"{name} ({type(module).__name__}) is no RMS norm")
    # Inputs of the size of sqrt(eps) too: a wrong epsilon must show.
    x = torch.randn(2, 1, weight.numel(), generator=torch.Generator().manual_seed(0))
    x = (x * torch.tensor([1.0, 2 * eps**0.5]).view(2, 1, 1)).to(weight.device)
    plain = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    for candidate in (weight.detach().float(), 1.0 + weight.detach().float()):
        if close(module(x), plain * candidate):
            return candidate.contiguous(), eps
    raise NotDescribed(f"{name} ({type(module).__name__}) is no RMS norm")


def activation(module: Any) -> str:
    """The name of the function between gate and up projection."""
    x = torch.linspace(-12, 12, 241)
    for name, function in _ACTIVATIONS.items():
        if callable(module) and close(module(x), function(x)):
            return name
    raise NotDescribed(f"the activation {type(module).__name__} is not one of {', '.join(_ACTIVATIONS)}")


def close(found: Any, wanted: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether two tensors are the same but for rounding, measured against the largest value of a row."""
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    room = tolerance * wanted.abs().amax(-1, keepdim=True)
    return bool(((found.float() - wanted).abs() <= room).all())


def ends(model: Any, layer: nn.Module, embedding: Any, head: nn.Module) -> dict[str, float]:
    """embedding_scale, logit_divisor and logit_cap: what happens before the first layer and after the head."""
    seen: dict[str, Tensor] = {}

    def at_entry(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["entry"] = args[0] if args else kwargs["hidden_states"]

    handles = [
        layer.register_forward_pre_hook(at_entry, with_kwargs=True),
        head.register_forward_hook(lambda module, args, output: seen.update(head=output)),
    ]
    size = int(embedding.weight.shape[0])
    ids = torch.arange(1, 5, device=model.device).remainder(size)[None]
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    rows = embedding.weight.detach()[ids]
    scale = _ratio(seen["entry"], rows)
    if scale is None:
        raise NotDescribed("what enters the first layer is no multiple of the embedding")
    divisor = _ratio(seen["head"], logits)
    if divisor is not None:
        return {"embedding_scale": scale, "logit_divisor": divisor, "logit_cap": 0.0}
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap and close(logits, cap * torch.tanh(seen["head"] / cap), 1e-5 + _rounding(logits)):
        return {"embedding_scale": scale, "logit_divisor": 1.0, "logit_cap": float(cap)}
    raise NotDescribed("the logits are no multiple of the head's outputs")


def _ratio(of: Tensor, to: Tensor) -> float | None:
    """The number that `of` is times `to`, or None if there is none. A ratio that is 1 but for rounding is 1."""
    rounding = _rounding(of)
    of, to = of.double().flatten(), to.double().flatten()
    ratio = float(of @ to / (to @ to))
    if not bool(((of - ratio * to).abs() <= max(1e-6, rounding) * of.abs().max()).all()):
        return None
    # Models scale by numbers of their own type (Gemma), and many roundings leave a mean that is far more exact.
    exact = float(torch.tensor(ratio).to(_BY_ROUNDING[rounding])) if rounding else float(round(ratio))
    return exact if abs(ratio - exact) < max(1e-6, rounding / 50) * abs(exact) else ratio


_BY_ROUNDING = {torch.finfo(dtype).eps: dtype for dtype in (torch.float16, torch.bfloat16)}


def _rounding(of: Tensor) -> float:
    """The relative spacing of a 16-bit type's numbers, else 0."""
    return torch.finfo(of.dtype).eps if of.element_size() == 2 else 0.0


def rotary_tables(rotary: Any, length: int, angles: tuple[str, ...] = ()) -> tuple[Tensor, Tensor]:
    """cos and sin [length, size] of positions 0 .. length - 1, float32, as the model's own module computes them.

    `angles` names one of the tables of a module that has several.
    """
    found = turned(rotary, range(length), angles)
    if not (isinstance(found, tuple) and len(found) == 2):
        raise NotDescribed(f"{type(rotary).__name__} gives no cosines and sines")
    cosines, sines = (table[0].float().contiguous() for table in found)
    half = cosines.shape[-1] // 2
    if not all(torch.equal(table[:, :half], table[:, half:]) for table in (cosines, sines)):
        raise NotDescribed(f"{type(rotary).__name__} turns neighbouring numbers, not halves")
    return cosines, sines


def turned(rotary: Any, positions: Iterable[int], angles: tuple[str, ...]) -> Any:
    """What a rotary module gives for these positions, in float32, on the device of its buffers."""
    device = next((buffer.device for buffer in rotary.buffers()), torch.device("cpu"))
    return rotary(torch.zeros(1, 1, 1, device=device), torch.tensor([*positions], device=device)[None], *angles)


def check_rotary(rotary: Any, limit: int, angles: tuple[str, ...] = ()) -> int:
    """Raise NotDescribed for angles that depend on how long the sequence is (dynamic NTK, longrope), else the size of a
    position's cosines."""
    few = rotary_tables(rotary, 8, angles)
    stretched = turned(rotary, (*range(8), limit - 1), angles)
    rotary_tables(rotary, 8, angles)  # a module that remembers the longest length forgets it here
    if not all(torch.equal(table, long[0, :8].float()) for table, long in zip(few, stretched, strict=True)):
        raise NotDescribed("the rotary angles depend on the length of the sequence")
    return int(few[0].shape[-1])
