import yaml

from awqbench.formats.card import model_card, table, with_results

RECIPE = {
    "recipe": {"method": "awq+gptq", "bits": 4, "group_size": 64, "symmetric": False, "damping": 0.03, "extra": None},
    "calibration": {"name": "pydoc-topics", "sha256": "ab12", "tokens": 1024},
    "linears": [
        {"name": f"model.layers.{index}.mlp.up_proj", "shape": [128, 64], "bits": 4, "tokens": 1024,
         "output_error_rtn": 0.25, "output_error": 0.125, "weight_error": 0.1, "share": index / 100}
        for index in range(14)
    ],
    "kept": ["model.layers.0.mlp.gate"],
    "mixed": None,
    "warnings": ["the text is short"],
    "format": "compressed-tensors",
    "effective_bits": 4,
    "group_size": 64,
}  # fmt: skip
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "_name_or_path": "acme/small",
    "quantization_config": {"ignore": ["lm_head", "model.layers.0.mlp.gate"]},
}  # fmt: skip


def test_front_matter_is_what_the_hub_reads():
    data = yaml.safe_load(model_card(RECIPE, CONFIG).split("---")[1])
    assert (data["base_model"], data["base_model_relation"]) == ("acme/small", "quantized")
    assert data["library_name"] == "transformers"
    assert {"quantized", "4-bit", "awq+gptq", "compressed-tensors"} <= set(data["tags"])
    assert data["quantization"] == {
        "method": "awq+gptq", "bits": 4, "group_size": 64, "symmetric": False, "format": "compressed-tensors",
    }  # fmt: skip


def test_a_path_is_no_base_model():
    for name in ("/models/small", "./a/b", "small", None):
        assert "base_model:" not in model_card(RECIPE, CONFIG | {"_name_or_path": name})


def test_what_was_done_and_where_the_error_is():
    card = model_card(RECIPE, CONFIG)
    assert card == model_card(RECIPE, CONFIG)
    assert "14 linear layers (114,688 weights)" in card
    assert "4.312 bits per weight, 0.1 MB" in card  # 4 + (16 + 4) / 64
    assert "| damping | 0.03 |" in card
    assert "extra" not in card
    assert "| tokens | 1024 |" in card
    assert "`lm_head`, `model.layers.0.mlp.gate`" in card
    assert "the 10 largest of 14" in card
    worst = [line for line in card.splitlines() if line.startswith("| `model.layers.")]
    assert worst[0] == "| `model.layers.13.mlp.up_proj` | 4 | 1024 | 0.25 | 0.125 | 13 % |"
    assert len(worst) == 10
    assert "- the text is short" in card
    assert "from_pretrained(FOLDER)" in card


def test_nothing_is_claimed_that_nobody_measured():
    bare = model_card({"recipe": {"method": "rtn", "bits": 4}, "format": "autoawq", "effective_bits": 3}, CONFIG)
    assert "No calibration text was used." in bare
    assert "No error was measured." in bare
    assert "Not measured yet." in bare
    assert "MB" not in bare
    kept = model_card({**RECIPE, "kept": []}, {"model_type": "llama"})
    assert "No linear layer was kept." in kept


def test_sizes_of_layouts():
    symmetric = {**RECIPE, "recipe": {"method": "rtn", "symmetric": True}}
    assert "4.250 bits per weight" in model_card(symmetric, CONFIG)
    assert "4.312 bits per weight" in model_card({**symmetric, "format": "autoawq"}, CONFIG)
    assert "3.297 bits per weight" in model_card({**RECIPE, "effective_bits": 3}, CONFIG)
    assert "4.312 bits per weight" in model_card({**RECIPE, "effective_bits": 3, "format": "autoawq"}, CONFIG)
    assert "4.312 bits per weight" in model_card({**RECIPE, "group_size": -1}, CONFIG)  # rows of 64


def test_mixed_precision():
    name = RECIPE["linears"][13]["name"]
    raised = {"name": name, "block_error": 0.25, "share": 0.5, "added_bytes": 4096}
    mixed = {"keep_bits": 8, "bits_per_weight": 4.5, "bits_per_weight_before": 4.3125, "linears": [raised]}
    card = model_card({**RECIPE, "mixed": mixed}, CONFIG)
    assert "at 8 bits, 1 of them, which makes 4.500 bits per weight of 4.312" in card
    assert [line for line in card.splitlines() if name in line] == [f"| `{name}` | 0.25 | 50 % | 4,096 |"]


def test_weight_errors_where_no_output_was_seen():
    rows = [{"name": "a", "shape": [8, 64], "weight_error": 0.5, "weight_error_rtn": 0.5}]
    card = model_card({**RECIPE, "linears": rows}, CONFIG)
    assert "Relative error of a linear's weight" in card
    assert "| `a` |  |  | 0.5 | 0.5 |  |" in card


def test_results_are_replaced_and_all_else_stays():
    card = model_card(RECIPE, CONFIG)
    once = with_results(card, "first | result")
    assert "first | result" in once
    assert "Not measured yet." not in once
    assert with_results(once, "second") == with_results(card, "second")
    assert with_results(once, "first | result") == once
    assert with_results("# Mine\n", "figures").startswith("# Mine\n\n## Measured results\n")
    assert with_results(with_results("# Mine\n", "a"), "b") == with_results("# Mine\n", "b")


def test_a_table_escapes_what_would_end_a_cell():
    assert table(("a", "b"), [("x|y", 1)]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"
