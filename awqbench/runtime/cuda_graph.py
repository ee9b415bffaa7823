"""A decoding step captured as a CUDA graph: one launch for all of a token's kernels. All calls to CUDA are here.

Unmeasured: no GPU has run this yet. What is replayed from which tensors is tested on a CPU, with a recorder in the
place of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.runtime.static import Step

WARM_UP = 3


class CudaGraphs:
    """Captures steps of one device. Their graphs share a memory pool, so they must be replayed one at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step) -> Step:
        """The step as a graph that the current stream replays; its result lies in the same tensor each time.

        The step is run some times before, on the stream that captures, so that libraries allocate and choose their
        kernels outside of the capture. Raises RuntimeError for what cannot be captured, such as waiting for the device.
        """
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP):
                    step()
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                logits = step()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay
