import json

import pytest

from awqbench.errors import UserError
from awqbench.formats.checkpoint import inspect_checkpoint


@pytest.mark.parametrize("bits", [3, 4])
def test_sizes_and_recipe(bits, written):
    case = written(bits=bits)
    found = inspect_checkpoint(case.out)
    assert json.loads(json.dumps(found)) == found
    assert (found["architecture"], found["bits"], found["effective_bits"]) == ("LlamaForCausalLM", 4, bits)
    assert (found["linears"], found["group_size"], found["not_converted"]) == (14, 32, ["lm_head"])
    weights = sum(tensor.codes.numel() for tensor in case.quantized.values())
    assert found["quantized_parameters"] == weights
    assert found["parameters"] == sum(p.numel() for p in case.model.parameters())
    assert found["bytes"]["qweight"] == weights // 2
    assert found["bytes"]["scales"] == weights // 32 * 2
    assert found["bits_per_weight"] == 4 + (16 + 4) / 32
    assert found["bytes"]["matrices"] == 96 * 64 * 4
    assert found["shapes"]["model.layers.0.mlp.down_proj"] == [64, 96]
    assert found["recipe"]["recipe"] == {"method": "rtn"}


def test_a_checkpoint_of_another_tool_has_no_recipe(written):
    case = written()
    (case.out / "quantize.json").unlink()
    found = inspect_checkpoint(case.out)
    assert found["recipe"] is None
    assert found["effective_bits"] == 4


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no quantized checkpoint"):
        inspect_checkpoint(tmp_path)
