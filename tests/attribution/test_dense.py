from __future__ import annotations

from pathlib import Path

import pytest

from awqbench.attribution.dense import load_candidate
from awqbench.formats.shards import Shards
from awqbench.quantization.pipeline import quantize_model
from awqbench.quantization.recipe import Recipe


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("layout", "bits"), [("autoawq", 3), ("autoawq", 4), ("compressed-tensors", 3)])
def test_a_linear_takes_the_bytes_of_its_tensors(
    llama: Path, tmp_path: Path, layout: str, bits: int, symmetric: bool
) -> None:
    recipe = Recipe(method="rtn", bits=bits, group_size=16, symmetric=symmetric)
    quantize_model(llama, tmp_path / "rtn", recipe, layout=layout)
    _, packed = load_candidate(tmp_path / "rtn")
    for name, each in packed.items():
        entries = {key: entry for key, entry in Shards(tmp_path / "rtn").entries.items() if key.startswith(f"{name}.")}
        assert each.bits == bits
        assert each.bytes == sum(entry.nbytes for key, entry in entries.items() if not key.endswith("_shape")), name
