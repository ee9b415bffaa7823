"""How far layers see is read off the masks that they are handed."""

import pytest
import torch

from awqbench.runtime import sight
from awqbench.runtime.describe import describe
from awqbench.runtime.fused import takes
from awqbench.runtime.probe import NotDescribed


@pytest.fixture
def make(make_model):
    """make(family, attention, **changes): in 16 bits, with its description."""

    def make(family, attention="sdpa", **changes):
        model = make_model(family, kernel="cuda", dtype=torch.float16, **changes)
        model.set_attn_implementation(attention)
        return model, describe(model, takes)

    return make


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("family", "changes", "expected"), [
    ("llama", {}, [0, 0]),
    ("mistral", {}, [16, 16]),
    ("mistral", {"sliding_window": None}, [0, 0]),
    ("mistral", {"sliding_window": 500}, [500, 500]),  # longer than it was made for
    ("gemma3", {}, [8, 0, 8]),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}, [0, 24]),
])  # fmt: skip
@torch.no_grad()
def test_windows(family, changes, expected, attention, make):
    model, found = make(family, attention, **changes)
    assert sight.windows(model, found) == expected
    assert not any("forward" in layer.__dict__ for layer in model.model.layers)


def mask(*seen):
    return torch.tensor(seen, dtype=torch.bool).view(1, 1, 1, -1)


def test_only_the_last_positions_are_a_window():
    assert sight._window(mask(0, 0, 1, 1), 4, "it") == 2
    assert sight._window(torch.zeros(1, 1, 1, 4), 4, "it") == 0
    assert sight._window(None, 4, "it") == 0
    for other in (mask(1, 0, 1, 1), mask(0, 0, 1, 0), mask(0, 0, 0, 0), mask(1, 1, 1)):
        with pytest.raises(NotDescribed, match=r"it (sees other positions|is given a mask)"):
            sight._window(other, 4, "it")


@torch.no_grad()
def test_what_shows_no_sight_is_refused(make):
    model, found = make("gemma3")
    layers = found.layers
    layers[0], layers[1] = layers[1], layers[0]
    with pytest.raises(NotDescribed, match="layer 0 is given other rotary angles"):
        sight.windows(model, found)
    model, found = make("mistral")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(NotDescribed, match="no mask that shows its sight"):
        sight.windows(model, found)
