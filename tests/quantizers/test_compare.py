"""What an earlier comparison left is of the same model and texts, or is not taken up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def test_figures_of_another_model_are_not_shown_as_this_ones(
    script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    for name in ("material", "contenders", "cost", "judge", "table"):
        script(name)
    load, path = script("compare")._load, tmp_path / "results.json"
    results = load(path, ["model", "texts"])
    assert results == {"of": ["model", "texts"], "rows": {}}
    path.write_text(json.dumps(results | {"rows": {"rtn": {}}}))
    assert load(path, ["model", "texts"])["rows"] == {"rtn": {}}
    for of in (["another", "texts"], ["model", "others"]):
        with pytest.raises(SystemExit, match="choose another --out"):
            load(path, of)
