"""Makes planted.py importable under a name of its own: test modules are imported by path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("kernelbench_planted", Path(__file__).with_name("planted.py"))
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("kernelbench_planted", _module)
_spec.loader.exec_module(sys.modules["kernelbench_planted"])
