"""Which device a spec means, and which are refused before anything is loaded."""

from __future__ import annotations

import pytest
import torch

from awqbench.backends.device import pick_device
from awqbench.errors import UserError


@pytest.mark.parametrize(
    ("gpus", "name", "picked"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "auto", "cuda"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_picked(gpus: int, name: str, picked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert str(pick_device(name)) == picked


@pytest.mark.parametrize(
    ("gpus", "name", "message"),
    [
        (0, "cuda", "sees no GPU"),
        (2, "cuda:2", "'cuda:2' asked for, but the last of 2 GPUs is cuda:1"),
        (2, "mps", "unknown device 'mps'"),
        (0, "meta", "unknown device 'meta'"),
        (2, "cuda:", "unknown device 'cuda:'"),
        (2, "gpu", "unknown device 'gpu'"),
    ],
)
def test_refused(gpus: int, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UserError, match=message):
        pick_device(name)
