import json

import pytest
from transformers import AutoConfig

from awqbench.formats.config import _rope_for_transformers_4


def config_of(case):
    return json.loads((case.out / "config.json").read_text())


def test_rope_theta_stands_where_transformers_4_reads_it(written):
    config = config_of(written("llama-tied"))
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 77777.0


def test_scaled_rope_is_written_out_and_read_back(written):
    case = written("llama-untied")
    config = config_of(case)
    assert config["rope_theta"] == 5e5
    assert config["rope_scaling"]["rope_type"] == "llama3"
    assert AutoConfig.from_pretrained(case.out).rope_parameters == case.model.config.rope_parameters


def test_the_old_names_of_gpt_neox(written):
    config = config_of(written("gpt-neox"))
    assert (config["rotary_emb_base"], config["rotary_pct"]) == (10000, 0.25)


def test_rope_per_kind_of_layer():
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert _rope_for_transformers_4({"rope_parameters": rope}) == {"rope_theta": 1e6, "rope_local_base_freq": 1e4}


def test_models_without_rotary_embeddings(written):
    assert "rope_theta" not in config_of(written("opt"))


@pytest.mark.parametrize("bits", [3, 4])
def test_the_quantization_config_is_valid_everywhere(bits, written):
    case = written(bits=bits)
    config = config_of(case)
    assert config["quantization_config"] == {
        "quant_method": "awq", "version": "gemm", "bits": 4, "group_size": 32, "zero_point": True,
        "modules_to_not_convert": ["lm_head"],
    }  # fmt: skip
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert json.loads((case.out / "quantize.json").read_text())["effective_bits"] == bits


def test_every_linear_that_is_not_quantized_is_named(tmp_path, written):
    case = written()
    from awqbench.formats.checkpoint import write_checkpoint

    kept = "model.layers.1.mlp.down_proj"
    del case.quantized[kept]
    write_checkpoint(case.out, case.source, case.model, case.quantized, bits=4, group_size=32)
    assert config_of(case)["quantization_config"]["modules_to_not_convert"] == ["lm_head", kept]
