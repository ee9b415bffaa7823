"""Device memory in which the CUDA kernels leave partial sums and counters between the blocks of one launch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

SMALLEST = 2**20


class Workspaces:
    """The workspaces of one device: one per stream, since two launches at a time must not share one.

    A workspace is zeroed once, and the kernels leave its counters at zero. It grows only outside of a graph capture,
    where nothing can be allocated for good: a stream that captures without a workspace gets the spare one, which was
    made beforehand; without a fitting spare the memory comes from the graph's own pool, zeroed by each replay: right,
    but one more node per launch. Nothing is ever given back, as a captured graph may still write to it. Graphs
    captured on one stream share its workspace: replay them one at a time.
    """

    def __init__(
        self, zeros: Callable[[int], Tensor], capturing: Callable[[], bool], synchronize: Callable[[], None]
    ) -> None:
        """`zeros` allocates bytes, `capturing` tells of the current stream, `synchronize` waits for what it zeroed."""
        self._zeros, self._capturing, self._synchronize = zeros, capturing, synchronize
        self._of_stream: dict[int, Tensor] = {}
        self._spare: Tensor | None = None
        self._retired: list[Tensor] = []

    def take(self, stream: int, size: int) -> Tensor:
        """At least `size` bytes for launches on the current stream, whose handle is `stream`."""
        held = self._of_stream.get(stream)
        if held is not None and held.numel() < size:
            held = None
        if held is not None and self._spare is not None:
            return held
        if self._capturing():
            if held is not None:
                return held
            if self._spare is None or self._spare.numel() < size:
                return self._zeros(size)
            held, self._spare = self._spare, None
            self._keep(stream, held)
            return held
        if held is None:
            held = self._zeros(max(SMALLEST, 1 << (size - 1).bit_length()))
            self._keep(stream, held)
        if self._spare is None or self._spare.numel() < held.numel():
            self._spare = self._zeros(held.numel())
            self._synchronize()  # another stream will use it
        return held

    def _keep(self, stream: int, workspace: Tensor) -> None:
        if stream in self._of_stream:
            self._retired.append(self._of_stream[stream])
        self._of_stream[stream] = workspace
