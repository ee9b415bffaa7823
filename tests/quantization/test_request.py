from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.quantization.__main__ import _refuse_longer_than_context


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "max_position_embeddings": 64},
        {"model_type": "gpt2", "n_positions": 64},
        {"model_type": "gemma3", "text_config": {"max_position_embeddings": 64}},
    ],
)
def test_windows_longer_than_the_context_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    _refuse_longer_than_context(tmp_path, 64)
    with pytest.raises(UserError, match=r"seq_len 65 is longer than the model's context \(allowed: 2 to 64\)"):
        _refuse_longer_than_context(tmp_path, 65)


def test_a_context_that_config_json_does_not_say_refuses_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bloom", "text_config": None}))
    _refuse_longer_than_context(tmp_path, 10**6)
