"""A native step is used only where its logits are the model's own: tried on a few tokens when the model is loaded."""

from __future__ import annotations

from typing import Any

import torch

from awqbench.runtime.decoding import TransformersDecoding
from awqbench.runtime.native import NativeModel
from awqbench.runtime.probe import NotDescribed

# Of the largest logit of a row. float32 sums in another order differ by a few millionths; what is computed otherwise (a
# norm's epsilon, an approximate activation) differs by more than this in a model of any depth.
TOLERANCE = 5e-5
BATCH, PROMPT, STEPS = 2, 5, 3


def prove(model: Any, native: NativeModel) -> None:
    """Compare decoded logits on two random sequences, once behind a prompt's cache and once from nothing.

    Raises NotDescribed when they differ, or when the native step can't take the model's cache.
    """
    length = PROMPT + STEPS
    if length > native.limit:
        raise NotDescribed(f"it sees {native.limit} tokens at a time")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, native.vocabulary, (BATCH, length), generator=generator)
    generic = TransformersDecoding(model, torch.device("cpu"))
    wanted = [generic.feed(ids[:, :PROMPT])]
    behind, alone = native.begin(BATCH, length), native.begin(BATCH, length)
    try:
        behind.take(generic.state["past_key_values"])
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise NotDescribed(f"its cache is another: {str(error).splitlines()[0]}") from None
    for position in range(PROMPT):
        found = alone.step(ids[:, position])
    _compare(found, wanted[0])
    for position in range(PROMPT, length):
        column = ids[:, position : position + 1]
        logits = generic.feed(column)
        _compare(behind.step(column[:, 0]), logits)
        _compare(alone.step(column[:, 0]), logits)


def _compare(found: torch.Tensor, wanted: torch.Tensor) -> None:
    difference = float(((found - wanted).abs().amax(-1) / wanted.abs().amax(-1)).max())
    if not difference <= TOLERANCE:
        raise NotDescribed(f"its logits differ from the model's own by {difference:.1e} of the largest")
