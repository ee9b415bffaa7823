"""How a kernel is timed: a CUDA graph of many launches over rotating weights, replayed; on a CPU, a plain loop.

`back-to-back` times launches that follow each other, as layers of a decode step do: a launch may overlap the end of the
one before. `isolated` puts a tiny foreign kernel between any two, and subtracts what those kernels take alone.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch

MODES = ("back-to-back", "isolated")

Launch = Callable[[], object]


class Timer(ABC):
    """Times launches; `clock` names how, for the record."""

    clock: str

    @abstractmethod
    def prepare(self, launches: Sequence[Launch], mode: str) -> Callable[[int], list[float]]:
        """A function from a number of replays to as many times, in microseconds per launch. Warm-up, run-time
        compilation and capture happen here."""


class GraphTimer(Timer):
    """CUDA graphs and events."""

    clock = "CUDA graph, events"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def prepare(self, launches: Sequence[Launch], mode: str) -> Callable[[int], list[float]]:
        """See Timer. Raises what capturing raises where a kernel can't be captured."""
        between = torch.zeros(1, device=self._device) if mode == "isolated" else None
        # Warm-up on the stream that captures: what a kernel keeps for each stream is then there, and in no graph.
        torch.cuda.synchronize()  # inputs and weights come from another stream
        with torch.cuda.stream(self._stream):
            for launch in launches[:3]:
                launch()
        torch.cuda.synchronize()
        graph = self._capture(launches, between)
        empty = self._capture([_nothing] * len(launches), between) if between is not None else None

        def replays(count: int) -> list[float]:
            full = self._replay(graph, count, len(launches))
            if empty is None:
                return full
            alone = sorted(self._replay(empty, count, len(launches)))[count // 2]
            return [each - alone for each in full]

        replays(2)
        return replays

    def _capture(self, launches: Sequence[Launch], between: torch.Tensor | None) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            for launch in launches:
                launch()
                if between is not None:
                    between.add_(1)
        return graph

    def _replay(self, graph: torch.cuda.CUDAGraph, count: int, launches: int) -> list[float]:
        begin, end = ([torch.cuda.Event(enable_timing=True) for _ in range(count)] for _ in "be")  # type: ignore[no-untyped-call]
        for start, stop in zip(begin, end, strict=True):
            start.record()
            graph.replay()
            stop.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) * 1e3 / launches for start, stop in zip(begin, end, strict=True)]


class CpuTimer(Timer):
    """A loop and the host's clock: shows that the benchmark works, says nothing about any kernel."""

    clock = "CPU loop, not a measurement of any kernel"

    def prepare(self, launches: Sequence[Launch], mode: str) -> Callable[[int], list[float]]:
        """See Timer."""
        launches[0]()

        def replays(count: int) -> list[float]:
            times = []
            for _ in range(count):
                began = time.perf_counter()
                for launch in launches:
                    launch()
                times.append((time.perf_counter() - began) * 1e6 / len(launches))
            return times

        return replays


def _nothing() -> None:
    """The launch of an empty graph."""
