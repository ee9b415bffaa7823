"""A step of ours is used only where its logits are the model's own: tried on a few tokens when the model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import first_line
from awqbench.runtime.decoding import Decoding, TransformersDecoding
from awqbench.runtime.native import NativeModel
from awqbench.runtime.probe import NotDescribed

# Of the largest logit of a row. float32 sums in another order differ by a few millionths; what is computed otherwise (a
# norm's epsilon, an approximate activation) differs by more than this in a model of any depth.
TOLERANCE = 5e-5
# In 16 bits each layer rounds, and other kernels round otherwise. SmolLM2-135M (30 layers, on a CPU) differed by 2e-3
# to 3e-3 in float16 and 2e-2 to 4e-2 in bfloat16, about as its own prefill and decode do. Unmeasured on a GPU.
TOLERANCES = {torch.float32: TOLERANCE, torch.float16: 2.0**-6, torch.bfloat16: 2.0**-3}
BATCH, PROMPT, STEPS = 2, 5, 3
UNLIKE, ALIKE = (4, 7, 2), (4, 4, 4)  # lengths of a batch's prompts

# Starts a batch: how many sequences, of up to how many ids, and whether the first have padding.
Begin = Callable[[int, int, bool], Decoding]


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
    compare(found, wanted[0])
    for position in range(PROMPT, length):
        column = ids[:, position : position + 1]
        logits = generic.feed(column)
        compare(behind.step(column[:, 0]), logits)
        compare(alone.step(column[:, 0]), logits)


@dataclass(frozen=True, slots=True)
class OwnLogits:
    """Sequences of ids [batch, n], and the model's own logits after PROMPT ids and after each further one."""

    ids: list[Tensor]
    logits: list[list[Tensor]]
    tolerance: float


def own_logits(model: Any, device: torch.device) -> OwnLogits:
    """What a decoding has to give, from the model's forward pass and the cache it makes. Raises NotDescribed for a type
    that no tolerance is known for."""
    if model.dtype not in TOLERANCES:
        raise NotDescribed(f"the model computes in {str(model.dtype).removeprefix('torch.')}")
    generator, vocabulary = torch.Generator().manual_seed(0), int(model.config.get_text_config().vocab_size)
    found = OwnLogits([], [], TOLERANCES[model.dtype])
    for _ in range(2):
        ids = torch.randint(0, vocabulary, (BATCH, PROMPT + STEPS), generator=generator)
        found.ids.append(ids)
        with refusing():
            found.logits.append(_decoded(TransformersDecoding(model, device), ids))
    return found


def prove_decoding(own: OwnLogits, begin: Callable[[int, int], Decoding]) -> None:
    """Compare the logits of two sequences, one after the other, so that what the first leaves behind shows.

    Raises NotDescribed when they differ, or when the model cannot be decoded so.
    """
    with refusing():
        found = [_decoded(begin(*ids.shape), ids) for ids in own.ids]
    for steps, wanted in zip(found, own.logits, strict=True):
        for step, logits in zip(steps, wanted, strict=True):
            compare(step, logits, own.tolerance)


def prove_batch(model: Any, device: torch.device, begin: Begin, lengths: Sequence[int]) -> None:
    """Compare the logits of sequences decoded in one batch with those of each alone; and of the last and the first
    after the others were let go. `lengths` are those of their prompts.

    Raises NotDescribed when they differ, or when the model cannot be decoded so.
    """
    if model.dtype not in TOLERANCES:
        raise NotDescribed(f"the model computes in {str(model.dtype).removeprefix('torch.')}")
    generator, vocabulary = torch.Generator().manual_seed(0), int(model.config.get_text_config().vocab_size)
    longest, rows = max(lengths), list(range(len(lengths)))
    ids = torch.randint(0, vocabulary, (len(lengths), longest + STEPS), generator=generator)
    padding = torch.tensor([longest - length for length in lengths])
    padded = bool(padding.any())
    with torch.no_grad(), refusing():
        alone = [
            _decoded(TransformersDecoding(model, device), ids[row : row + 1, longest - length :], length)
            for row, length in enumerate(lengths)
        ]
        together = begin(len(lengths), longest + STEPS, padded)
        for step in range(STEPS + 1):
            first = step == 0
            fed = ids[:, :longest] if first else ids[rows, longest + step - 1 : longest + step]
            found = together.feed(fed, padding if first and padded else None).float()
            compare(found, torch.cat([alone[row][step] for row in rows]), TOLERANCES[model.dtype])
            if step == 1 and together.keep([rows[-1], 0]):
                rows = [rows[-1], 0]


@contextmanager
def refusing() -> Iterator[None]:
    """What a model raises that isn't used as it expects, memory that runs out included, as NotDescribed."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise NotDescribed(f"it raises {type(error).__name__}: {first_line(error)}") from error


def _decoded(decoding: Decoding, ids: Tensor, prompt: int = PROMPT) -> list[Tensor]:
    """Logits after the prompt and after each further id, in float32."""
    parts = [ids[:, :prompt], *(ids[:, t : t + 1] for t in range(prompt, ids.shape[1]))]
    return [decoding.feed(part).to(torch.float32, copy=True) for part in parts]  # the next call overwrites them


def compare(found: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    """Raises NotDescribed for logits [..., vocabulary] that differ by more than the tolerance of a row's largest."""
    difference = float(((found - wanted).abs().amax(-1) / wanted.abs().amax(-1)).max())
    if not difference <= tolerance:
        raise NotDescribed(f"its logits differ from the model's own by {difference:.1e} of the largest")
