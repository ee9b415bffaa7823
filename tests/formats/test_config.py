import copy
import json
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    Olmo3Config,
)

from awqbench.errors import UserError
from awqbench.formats.config import _rope_for_transformers_4, export_config, layout_of, read_config, read_schemes
from awqbench.formats.layouts import Scheme, layout
from awqbench.formats.load import load_quantized
from awqbench.modeling.skeleton import parameters_on_meta

IDS = torch.arange(2, 11)[None]


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


def test_only_what_transformers_5_reads_back_alike_is_said_of_layers_with_tables_of_their_own():
    full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    rope = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    for kind in (Gemma3TextConfig, Olmo3Config):
        written = {"model_type": kind.model_type, "rope_parameters": copy.deepcopy(rope)}
        written |= _rope_for_transformers_4(written)
        assert written["rope_scaling"] == full
        assert kind.from_dict(written).rope_parameters == rope
    rope["full_attention"] |= {"rope_type": "proportional", "partial_rotary_factor": 0.5}
    extra = _rope_for_transformers_4({"model_type": "another", "rope_parameters": rope})
    assert extra == {"rope_theta": 1e6, "rope_local_base_freq": 1e4}


def test_the_rope_of_a_text_model_within_another_stands_in_its_own_part():
    text = Gemma3TextConfig(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8,
        rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
    )  # fmt: skip
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    with parameters_on_meta():
        model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text.to_dict(), vision_config=vision))
    config = export_config(model, dtype="float32", quantization={})
    assert config["text_config"]["rope_scaling"]["factor"] == 8.0
    assert config["text_config"]["rope_theta"] == 1e6
    assert Gemma3Config.from_dict(config).text_config.rope_parameters == text.rope_parameters


def test_infinity_is_a_number_to_transformers_4_and_5():
    """Mamba's layers have such a limit; 5 writes a table in its place, which 4 cannot count with."""
    limits = [0.0, float("inf")]
    model = SimpleNamespace(config=LlamaConfig(time_step_limit=limits, other={"least": float("-inf")}))
    text = json.dumps(export_config(model, dtype="float32", quantization={}))
    read = json.loads(text)  # as 4 does
    assert (read["time_step_limit"], read["other"]) == (limits, {"least": float("-inf")})
    assert LlamaConfig.from_dict(read).time_step_limit == limits


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
    assert read_schemes(config, ["a"]) == {"a": Scheme(4, 32)}


def test_the_layout_is_found_by_its_quantization_method(written):
    config = read_config(written(format_name="compressed-tensors", bits=8, group_size=-1, symmetric=True).out)
    assert layout_of(config) is layout("compressed-tensors")
    assert read_schemes(config, ["a"]) == {"a": Scheme(8, -1, True)}


def test_an_old_autoawq_checkpoint_has_a_file_of_its_own(written):
    case = written()
    config = config_of(case)
    del config["quantization_config"]
    (case.out / "config.json").write_text(json.dumps(config))
    old = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
    (case.out / "quant_config.json").write_text(json.dumps(old))
    assert read_schemes(read_config(case.out), ["a"]) == {"a": Scheme(4, 32)}
    torch.testing.assert_close(load_quantized(case.out)(IDS).logits, case.model(IDS).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "no quantization_config"),
        (
            {"quant_method": "hqq", "bits": 4},
            "quantized by hqq, which is not read here .allowed: awq, compressed-.*gptq",
        ),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format is marlin"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "gemv"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, "no config_groups"),
    ],
)
def test_other_methods_are_refused_in_one_line(found, message, written):
    case = written()
    (case.out / "config.json").write_text(json.dumps({**config_of(case), "quantization_config": found}))
    with pytest.raises(UserError, match=message) as caught:
        read_config(case.out)
    assert str(caught.value).startswith(str(case.out / "config.json"))
    assert "\n" not in str(caught.value)


def test_what_is_read_may_be_more_than_what_is_multiplied(written):
    case = written()
    ordered = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True}
    (case.out / "config.json").write_text(json.dumps({**config_of(case), "quantization_config": ordered}))
    assert read_schemes(read_config(case.out), ["a"]) == {"a": Scheme(4, 32)}
    with pytest.raises(UserError, match=r"config\.json: it has an activation order .desc_act.*allowed: kind gptqmodel"):
        read_config(case.out, to_multiply=True)


def test_files_that_are_missing_or_no_configuration(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_config(tmp_path)
    for content, message in (("{", "is not JSON"), ("[]", "is not a JSON object")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match=message):
            read_config(tmp_path)
