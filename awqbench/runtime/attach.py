"""Whether a model's tokens are decoded natively: tried when it is loaded, and only kept if the results are the same."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from awqbench.errors import BackendUnavailable, unknown_choice
from awqbench.ops import cpu
from awqbench.runtime.decoding import Decoding, TransformersDecoding
from awqbench.runtime.describe import describe
from awqbench.runtime.native import MAX_BATCH, NativeDecoding, NativeModel
from awqbench.runtime.probe import NotDescribed
from awqbench.runtime.prove import prove
from awqbench.runtime.stored import StoredEmbedding, StoredLinear

log = logging.getLogger(__name__)

RUNTIMES = ("auto", "native", "transformers")


class Runtime:
    """How a loaded model decodes. `name` is native, or transformers with the reason why it isn't native."""

    def __init__(self, model: Any, device: torch.device, native: NativeModel | None, name: str) -> None:
        self.model, self.device, self.native, self.name = model, device, native, name

    def begin(self, batch: int, length: int) -> Decoding:
        """Start `batch` equally long sequences that will be fed `length` tokens at most.

        What exceeds the native step's limits (a batch, or a window of attention) goes through transformers.
        """
        if self.native is None or batch > MAX_BATCH or length > self.native.limit:
            return TransformersDecoding(self.model, self.device)
        return NativeDecoding(self.model, self.native, batch, length)


def attach(model: Any, device: torch.device, asked: str = "auto") -> Runtime:
    """The runtime of a loaded causal LM.

    Natively decoded models hold embedding and head in 16 bits from here on where that is exact. Raises UserError for an
    unknown name, BackendUnavailable when `native` is asked for and does not fit.
    """
    if asked not in RUNTIMES:
        raise unknown_choice("runtime", asked, RUNTIMES)
    if asked == "transformers":
        return Runtime(model, device, None, "transformers: asked for")
    try:
        native = _native(model, device)
    except NotDescribed as reason:
        if asked == "native":
            raise BackendUnavailable(f"this model cannot be decoded natively: {reason}") from None
        log.info("decoding through transformers: %s", reason)
        return Runtime(model, device, None, f"transformers: {reason}")
    return Runtime(model, device, native, "native")


def _native(model: Any, device: torch.device) -> NativeModel:
    if device.type != "cpu":
        raise NotDescribed(f"the device is {device.type}")
    if model.dtype is not torch.float32:
        raise NotDescribed(f"the model computes in {str(model.dtype).removeprefix('torch.')}")
    if reason := cpu.unavailable():
        raise NotDescribed(reason)
    with torch.no_grad():
        native = NativeModel(describe(model))
        prove(model, native)
        hold_as_stored(model, native)
    return native


def hold_as_stored(model: Any, native: NativeModel) -> None:
    """Replace embedding and head by modules on the native step's own 16-bit tensors, so that none is held twice.

    An embedding that does more than look up and scale stays; so does a tied head then.
    """
    table, head = native.description.embedding, native.description.head
    old, scale = model.get_input_embeddings(), 1.0
    if type(old) is not nn.Embedding:
        scale = float(getattr(old, "embed_scale", 1.0))
    new = StoredEmbedding(table, scale)
    ids = torch.arange(0, table.shape[0], max(1, table.shape[0] // 64))
    if table.element_size() == 2 and torch.equal(new(ids), old(ids)):
        model.set_input_embeddings(new)
    elif head is table:
        return
    if isinstance(head, torch.Tensor) and head.element_size() == 2:
        model.set_output_embeddings(StoredLinear(head))
