"""Hypothesis without a deadline: a busy machine is no reason to fail. Designs come from the calibration study."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

CALIBRATION = Path(__file__).resolve().parents[2] / "suites" / "calibration"


@pytest.fixture
def designs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The study's clusters and draws: a script's module, not part of the package."""
    monkeypatch.syspath_prepend(str(CALIBRATION))
    return importlib.import_module("designs")
