"""The timer of CUDA graphs on a GPU that is faked: what is captured, replayed, divided and subtracted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from awqbench.kernelbench.timers import GraphTimer

LAUNCH, BETWEEN = 7.0, 2.0  # microseconds


class Gpu:
    """A clock that a replay moves by what was captured."""

    def __init__(self) -> None:
        self.us = 0.0
        self.launched = 0
        self.streams: list[object] = []
        self.captures: list[tuple[int, object]] = []

    def launch(self) -> None:
        self.launched += 1

    def install(self, monkeypatch: pytest.MonkeyPatch, count: int, between: bool) -> None:
        gpu = self

        class Graph:
            cost = 0.0

            def replay(self) -> None:
                gpu.us += self.cost

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = gpu.us

            def elapsed_time(self, end: Any) -> float:
                return float(end.at - self.at) / 1e3

        @contextmanager
        def graph(captured: Graph, stream: object) -> Iterator[None]:
            before = gpu.launched
            yield
            launched = gpu.launched - before
            gpu.captures.append((launched, stream))
            captured.cost = launched * LAUNCH + (count * BETWEEN if between else 0.0)

        @contextmanager
        def on(stream: object) -> Iterator[None]:
            gpu.streams.append(stream)
            yield

        for name, value in {
            "CUDAGraph": Graph, "Event": Event, "graph": graph, "stream": on, "Stream": object,
            "synchronize": lambda: None,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.mark.parametrize("mode", ["back-to-back", "isolated"])
def test_microseconds_per_launch(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    gpu = Gpu()
    gpu.install(monkeypatch, count=50, between=mode == "isolated")
    replays = GraphTimer(torch.device("cpu")).prepare([gpu.launch] * 50, mode)
    assert replays(20) == [pytest.approx(LAUNCH)] * 20
    captured = [launched for launched, _ in gpu.captures]
    assert captured == ([50] if mode == "back-to-back" else [50, 0])
    assert gpu.launched == 50 + 3  # and no launch outside of a graph but the warm-up


def test_warm_up_and_capture_share_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel keeps per stream, its workspace, then exists before anything is captured."""
    gpu = Gpu()
    gpu.install(monkeypatch, count=4, between=False)
    timer = GraphTimer(torch.device("cpu"))
    timer.prepare([gpu.launch] * 4, "back-to-back")
    timer.prepare([gpu.launch] * 4, "back-to-back")
    assert len({*gpu.streams, *(stream for _, stream in gpu.captures)}) == 1
