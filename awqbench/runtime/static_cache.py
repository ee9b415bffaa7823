"""transformers' StaticCache as a step needs it that is captured once and replayed at every position.

Layers that see a sliding window or a chunk only get full-length layers too, and the model's own mask hides what they
must not see: transformers' static sliding layer counts positions in Python, which a captured step would not run. What
that costs is memory and reading beyond the window.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import first_line
from awqbench.runtime.probe import NotDescribed


@cache
def _layer_class() -> Any:
    """A static layer at a position that is counted elsewhere: `cumulative_length` belongs to the slot."""
    from transformers.cache_utils import StaticLayer

    class Layer(StaticLayer):  # type: ignore[misc]
        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            place, count = self.cumulative_length, key_states.shape[-2]
            if count > 1:
                place = torch.arange(count, device=place.device) + place
            self.keys.index_copy_(2, place, key_states)
            self.values.index_copy_(2, place, value_states)
            return self.keys, self.values

    return Layer


def static_cache(config: Any, capacity: int, length: Tensor) -> tuple[Any, bool]:
    """transformers' StaticCache with a full-length layer for each layer that keeps keys and values, and whether every
    layer sees all of them. `length` int64 [1] is read for the position of the next token, and never written.

    Raises NotDescribed for state of another kind (state spaces, convolutions, compressed or indexed keys).
    """
    from transformers import cache_utils
    from transformers.cache_utils import StaticCache, StaticLayer, StaticSlidingWindowLayer

    # A layer without attention, or with another's keys and values; transformers 5.17 has none in the cache.
    nothing = getattr(cache_utils, "DummyLayer", StaticLayer)
    try:
        made = StaticCache(config=config, max_cache_len=capacity)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotDescribed(f"transformers has no static cache for it: {first_line(error)}") from None
    sees_all = not any(type(layer) is StaticSlidingWindowLayer for layer in made.layers)
    for number, layer in enumerate(made.layers):
        if type(layer) in (StaticLayer, StaticSlidingWindowLayer):
            made.layers[number] = _layer_class()(max_cache_len=capacity)
            made.layers[number].cumulative_length = length
        elif type(layer) is not nothing:
            raise NotDescribed(f"layer {number} keeps more than keys and values ({type(layer).__name__})")
    return made, sees_all
