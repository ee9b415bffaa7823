"""How a model's tokens are decoded: tried when it is loaded, and only kept if the results are the same."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from awqbench.errors import BackendUnavailable, unknown_choice
from awqbench.ops import cpu
from awqbench.ops.cuda import MAX_ROWS
from awqbench.runtime import merged, norms
from awqbench.runtime.cuda_graph import CudaGraphs
from awqbench.runtime.decoding import Decoding, TransformersDecoding
from awqbench.runtime.describe import describe
from awqbench.runtime.fused import FusedStep
from awqbench.runtime.fused import wanted as wants_fused
from awqbench.runtime.native import MAX_BATCH, NativeDecoding, NativeModel, takes
from awqbench.runtime.probe import NotDescribed
from awqbench.runtime.prove import ALIKE, UNLIKE, OwnLogits, own_logits, prove, prove_batch, prove_decoding, refusing
from awqbench.runtime.static import Capture, StaticModel
from awqbench.runtime.stored import StoredEmbedding, StoredLinear

log = logging.getLogger(__name__)

# Sequences of any lengths, of one length, or no two.
Sharing = Literal["any", "alike", "none"]
RUNTIMES = ("auto", "native", "cuda-graph", "static", "transformers")


class Runtime:
    """How a loaded model decodes.

    `name` is native, cuda-graph, static, or transformers with the reason why it is none of those; static has a reason
    behind it too where a CUDA graph was wanted. "cuda-graph, fused" and "static, fused" decode by the fused step, and
    there is a reason where it was wanted and isn't used.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        native: NativeModel | None,
        name: str,
        static: StaticModel | None = None,
    ) -> None:
        self.model, self.device, self.native, self.static, self.name = model, device, native, static, name

    def begin(self, batch: int, length: int, padded: bool = False) -> Decoding:
        """Start `batch` sequences that will be fed `length` ids at most; `padded`, if their first ids have padding.

        What exceeds the native step's limits (a batch, or a window of attention) goes through transformers. With a
        static cache, sequences of the same sizes take turns: those begun before end.
        """
        if self.static is not None:
            try:
                return self.static.begin(batch, length, padded)
            except NotDescribed:
                if self.static.fused is None:
                    raise
                return self._plain(batch, length)  # more than the fused step takes, and the model's own step no padding
        if self.native is None or self.native.unfit(batch, length):
            return self._plain(batch, length)
        return NativeDecoding(self.model, self.native, batch, length)

    def otherwise(self, batch: int, length: int) -> str | None:
        """What decodes such sequences, and why, where it is not what `name` says: they exceed the limits of a step, or
        the step for them, which is there once they were begun, could not be captured."""
        if self.static is None:
            reason = None if self.native is None else self.native.unfit(batch, length)
            return reason and f"transformers: {reason}"
        told = {"the model's own step": self.static.unfused(batch, length)}
        if self.name.startswith("cuda-graph"):
            told["a step without a CUDA graph"] = self.static.uncaptured(batch, length)
        return "; ".join(f"{what}: {why}" for what, why in told.items() if why) or None

    def _plain(self, batch: int, length: int, padded: bool = False) -> Decoding:
        return TransformersDecoding(self.model, self.device)

    @property
    def largest_batch(self) -> int | None:
        """Sequences beyond which the native or the fused step gives way to a slower one; None: any number."""
        if self.static is not None and self.static.fused is not None:
            return MAX_ROWS
        return MAX_BATCH if self.native is not None else None

    @cached_property
    def sharing(self) -> Sharing:
        """Which sequences may be decoded in one batch: tried once, each of them against itself alone."""
        tries: tuple[tuple[Sharing, tuple[int, ...]], ...] = (("any", UNLIKE), ("alike", ALIKE))
        for sharing, lengths in tries:
            try:
                for begin in (self.begin, self._plain) if self.static is None else (self.begin,):
                    prove_batch(self.model, self.device, begin, lengths)
            except NotDescribed as reason:
                log.info("prompts of %s lengths are decoded apart: %s", "unlike" if sharing == "any" else "all", reason)
            else:
                return sharing
        return "none"


def attach(model: Any, device: torch.device, asked: str = "auto") -> Runtime:
    """The runtime of a loaded causal LM. `auto` is the native step on a CPU and a CUDA graph on a CUDA device.

    Natively decoded models hold embedding and head in 16 bits from here on where that is exact; those with a static
    cache multiply linears that read the same tensor together. Raises UserError for an unknown name, BackendUnavailable
    when a runtime is asked for by name and does not fit.
    """
    if asked not in RUNTIMES:
        raise unknown_choice("runtime", asked, RUNTIMES)
    if asked == "transformers":
        return Runtime(model, device, None, "transformers: asked for")
    try:
        if asked == "static":
            return static_runtime(model, device)
        if asked == "cuda-graph" or (asked == "auto" and device.type == "cuda"):
            return _graph_runtime(model, device, asked)
        return Runtime(model, device, _native(model, device), "native")
    except NotDescribed as reason:
        if asked != "auto":
            raise BackendUnavailable(f"this model cannot be decoded {_HOW[asked]}: {reason}") from None
        log.info("decoding through transformers: %s", reason)
        return Runtime(model, device, None, f"transformers: {reason}")


_HOW = {"native": "natively", "static": "with a static cache", "cuda-graph": "by a CUDA graph"}


def _graph_runtime(model: Any, device: torch.device, asked: str) -> Runtime:
    if device.type != "cuda":
        raise NotDescribed(f"the device is {device.type}")
    with refusing():
        graphs = CudaGraphs(device)
    runtime = static_runtime(model, device, graphs)
    if asked != "auto" and runtime.static is not None and runtime.static.not_captured:
        raise NotDescribed(runtime.static.not_captured)
    return runtime


def static_runtime(model: Any, device: torch.device, capture: Capture | None = None, fused: bool = True) -> Runtime:
    """Decoding with a static cache, its step captured by `capture`, or as it is where that fails.

    The step is the fused one for models with packed linears in 16 bits, if it is proved for them and not unwanted.
    Linears are merged and norms made one operation first, and that is undone should the model not bear it. Raises
    NotDescribed when the logits are not the model's own in any way.
    """
    with torch.no_grad():
        own, why = own_logits(model, device), None
        try:
            with refusing():
                merged.merge_linears(model)
            if wants_fused(model):
                try:
                    return _fused(model, device, capture, own, fused)
                except NotDescribed as reason:
                    log.info("the step is transformers': %s", reason)
                    why = str(reason)
            with refusing():
                norms.fuse_norms(model)
            return _proved(StaticModel(model, device, capture, not_fused=why), own)
        except NotDescribed as reason:
            log.info("layers stay as they are: %s", reason)
            merged.part(model)
            norms.unfuse_norms(model)
            return _proved(StaticModel(model, device, capture, own_mask=False, not_fused=why), own)


def _fused(model: Any, device: torch.device, capture: Capture | None, own: OwnLogits, asked: bool) -> Runtime:
    if not asked:
        raise NotDescribed("not asked for")
    with refusing():
        norms.unfuse_norms(model)  # they are asked what they compute in float32
        step = FusedStep(model)
        norms.fuse_norms(model)
    static = StaticModel(model, device, capture, fused=step)
    runtime = _proved(static, own)
    if static.not_captured is not None:  # the model's own step may be
        raise NotDescribed(f"no CUDA graph: {static.not_captured}")
    return runtime


def _proved(static: StaticModel, own: OwnLogits) -> Runtime:
    prove_decoding(own, static.begin)
    return Runtime(static.model, static.device, None, static.name, static)


def _native(model: Any, device: torch.device) -> NativeModel:
    if device.type != "cpu":
        raise NotDescribed(f"the device is {device.type}")
    if model.dtype is not torch.float32:
        raise NotDescribed(f"the model computes in {str(model.dtype).removeprefix('torch.')}")
    if reason := cpu.unavailable():
        raise NotDescribed(reason)
    with torch.no_grad():
        native = NativeModel(describe(model, takes))
        prove(model, native)
        hold_as_stored(model, native)
    return native


def hold_as_stored(model: Any, native: NativeModel) -> None:
    """Replace embedding and head by modules on the native step's own 16-bit tensors, so that none is held twice.

    An embedding that does more than look up and scale stays; so does a tied head then.
    """
    table, head = native.embedding, native.head
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
