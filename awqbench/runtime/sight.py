"""How far back each layer sees: read off what a model hands its layers for a token that has many others before it.

No logits of a few tokens would show it, and a window is not named alike by all models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awqbench.runtime.describe import Description, lengths
from awqbench.runtime.probe import NotDescribed, turned
from awqbench.runtime.static_cache import static_cache

MOST = 2**22  # positions of a cache that is only spoken of: a mask of this many numbers


def windows(model: Any, found: Description) -> list[int]:
    """For each layer, how many of the last positions it sees, 0 for all. Raises NotDescribed for any other sight, and
    for a layer that is handed other rotary angles than the description says."""
    config = model.config.get_text_config()
    if model.config._attn_implementation not in ("sdpa", "eager"):
        raise NotDescribed(f"its attention ({model.config._attn_implementation}) is given no mask that shows its sight")
    count = min(MOST, max(lengths(config)) + 1)
    sights = []
    for number, (parts, given) in enumerate(zip(found.layers, _handed(model, count), strict=True)):
        angles = turned(found.rotary, [count - 1], parts.angles)
        handed = given.get("position_embeddings")
        if not isinstance(handed, tuple) or not all(map(_same, handed, angles)):
            raise NotDescribed(f"layer {number} is given other rotary angles")
        sights.append(_window(given.get("attention_mask"), count, f"layer {number}"))
    return sights


def _handed(model: Any, count: int) -> list[dict[str, Any]]:
    """The keyword arguments of each layer for the last of `count` tokens in a static cache. The layers do not run."""
    layers, seen = getattr(model, model.base_model_prefix).layers, []
    place = torch.full((1,), count - 1, device=model.device)
    cache, _ = static_cache(model.config, count, place)
    for store in cache.layers:
        store.is_initialized = True  # as it is behind so many tokens; nothing asks for what it holds

    def keep(hidden_states: Tensor, **kwargs: Any) -> Tensor:
        seen.append(kwargs)
        return hidden_states

    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.__dict__["forward"] = keep
        model(
            input_ids=torch.ones_like(place)[None], position_ids=place[None], past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.__dict__["forward"]
            if own is not None:
                layer.__dict__["forward"] = own
    return seen


def _same(handed: Tensor, angle: Tensor) -> bool:
    return torch.equal(handed.flatten(), angle.flatten().to(handed.dtype))


def _window(mask: Any, count: int, name: str) -> int:
    """The window that a mask of the last of `count` positions shows."""
    if mask is None:
        return 0
    if not isinstance(mask, Tensor) or mask.shape != (1, 1, 1, count):
        raise NotDescribed(f"{name} is given a mask that shows nothing")
    sees = (mask if mask.dtype is torch.bool else mask == 0).flatten()
    seen = int(sees.sum())
    if seen == 0 or not bool(sees[-seen:].all()):
        raise NotDescribed(f"{name} sees other positions than the last ones")
    return 0 if seen == count else seen
