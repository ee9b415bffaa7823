from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM

from awqbench.errors import UserError
from awqbench.formats.load import load_quantized, read_quantized
from awqbench.formats.summary import inspect_checkpoint
from awqbench.quantization.calibrate import Windows, cut_windows
from awqbench.quantization.mixed import Mixing
from awqbench.quantization.pipeline import quantize_model
from awqbench.quantization.recipe import Recipe

AWQ = Recipe(method="awq", group_size=32)


@pytest.fixture(scope="module")
def windows(ids: torch.Tensor) -> Windows:
    """Four windows of 32 tokens."""
    return cut_windows(ids, 4, 32)


@pytest.fixture(scope="module")
def made(llama_folder: Path, windows: Windows, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("made") / "awq"
    return out, quantize_model(llama_folder, out, AWQ, windows=windows, calibration={"name": "noise"})


def contents(folder: Path) -> dict[str, str]:
    """A hash for every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", ["llama", "gemma2", "neox", "opt", "phi3", "gpt2", "qwen2-moe", "deepseek-v2"])
@pytest.mark.parametrize("method", ["awq", "awq+gptq"])
def test_the_packed_model_computes_what_its_integers_say(
    build: Callable[..., Any], ids: torch.Tensor, windows: Windows, tmp_path: Path, kind: str, method: Any
) -> None:
    source, out = tmp_path / "model", tmp_path / "out"
    build(kind).save_pretrained(source)
    metadata = quantize_model(source, out, Recipe(method=method, group_size=16), windows=windows, indivisible="keep")
    assert {row["name"] for row in metadata["linears"]} == set(read_quantized(out))
    packed = load_quantized(out, torch.float32)
    dense = load_quantized(out, torch.float32, kernel="dequantize")
    original = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    for length in (1, 2, 7, 64):
        batch = ids[:length].unsqueeze(0)
        with torch.no_grad():
            expected, logits, wanted = dense(batch).logits, packed(batch).logits, original(batch).logits
        assert (logits - expected).norm() < 1e-4 * expected.norm()
        assert (logits - wanted).norm() < 0.7 * wanted.norm()


def test_metadata_accounts_for_every_linear_and_group(made: tuple[Path, dict[str, Any]], windows: Windows) -> None:
    out, metadata = made
    written = json.loads((out / "quantize.json").read_text())
    returned_only = {"seconds", "needs", "resumed_blocks"}
    assert {key: written[key] for key in metadata if key not in returned_only} == {
        key: value for key, value in metadata.items() if key not in returned_only
    }
    assert returned_only <= set(metadata)
    assert metadata["recipe"] == {
        "method": "awq", "bits": 4, "group_size": 32, "symmetric": False, "clip": True, "search": "gram",
        "damping": 0.03, "grouped_queries": False, "seed": 0, "dtype": "float32",
    }  # fmt: skip
    calibration = metadata["calibration"]
    assert (calibration["tokens"], calibration["name"], calibration["sha256"]) == (128, "noise", windows.sha256)
    assert len(metadata["linears"]) == 14
    assert sum(row["share"] for row in metadata["linears"]) == pytest.approx(1)
    assert all(row["tokens"] == 128 for row in metadata["linears"])
    assert all(group["reason"] for group in metadata["groups"] if group["status"] == "left alone")
    assert metadata["kept"] == metadata["warnings"] == []


def test_two_runs_give_the_same_bytes(
    made: tuple[Path, dict[str, Any]], llama_folder: Path, windows: Windows, tmp_path: Path
) -> None:
    quantize_model(llama_folder, tmp_path / "awq", AWQ, windows=windows, calibration={"name": "noise"})
    assert contents(tmp_path / "awq") == contents(made[0])
    assert [path.name for path in tmp_path.iterdir()] == ["awq"]


@pytest.mark.parametrize("method", ["awq", "gptq", "awq+gptq"])
def test_every_method_is_nearer_to_the_model_than_rounding_to_nearest(
    llama_folder: Path, ids: torch.Tensor, tmp_path: Path, method: Any
) -> None:
    batch, windows = ids[1000:1200].unsqueeze(0), cut_windows(ids[:1000], 16, 32)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32)(batch).logits.log_softmax(-1)
    divergence = {}
    for each in ("rtn", method):
        quantize_model(llama_folder, tmp_path / each, Recipe(method=each, bits=3, group_size=32), windows=windows)
        with torch.no_grad():
            logits = load_quantized(tmp_path / each, torch.float32)(batch).logits.log_softmax(-1)
        divergence[each] = float((expected.exp() * (expected - logits)).sum(-1).mean())
    assert divergence[method] < divergence["rtn"]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("group_size", "symmetric"), [(32, False), (32, True), (-1, False), (-1, True)])
def test_every_scheme_in_compressed_tensors(
    llama_folder: Path, ids: torch.Tensor, tmp_path: Path, bits: int, group_size: int, symmetric: bool
) -> None:
    recipe = Recipe(method="rtn", bits=bits, group_size=group_size, symmetric=symmetric)
    quantize_model(llama_folder, tmp_path / "out", recipe, layout="compressed-tensors")
    quantized = read_quantized(tmp_path / "out")
    assert len(quantized) == 14
    assert all((each.bits, each.zeros.eq(2 ** (bits - 1)).all().item() or not symmetric) == (bits, True)
               for each in quantized.values())  # fmt: skip
    with torch.no_grad():
        logits = load_quantized(tmp_path / "out", torch.float32)(ids[:9].unsqueeze(0)).logits
    assert logits.isfinite().all()


def test_rounding_to_nearest_without_a_calibration_text(llama_folder: Path, tmp_path: Path) -> None:
    metadata = quantize_model(llama_folder, tmp_path / "rtn", Recipe(method="rtn"))
    assert metadata["calibration"] is None
    assert all(row["output_error"] is None and row["tokens"] == 0 for row in metadata["linears"])
    assert len(read_quantized(tmp_path / "rtn")) == 14


def test_rounding_to_nearest_with_one_measures_its_output_error(
    llama_folder: Path, windows: Windows, tmp_path: Path
) -> None:
    metadata = quantize_model(llama_folder, tmp_path / "rtn", Recipe(method="rtn", group_size=32), windows=windows)
    assert all(row["output_error"] == pytest.approx(row["output_error_rtn"]) for row in metadata["linears"])
    assert not any(group["absorber"] for group in metadata["groups"])


def test_tied_embeddings_stay_tied_and_untouched(build: Callable[..., Any], windows: Windows, tmp_path: Path) -> None:
    model = build("llama", tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "model")
    quantize_model(tmp_path / "model", tmp_path / "awq", AWQ, windows=windows)
    assert "lm_head.weight" not in load_file(tmp_path / "awq" / "model.safetensors")
    packed = load_quantized(tmp_path / "awq", torch.float32)
    assert packed.get_output_embeddings().weight.data_ptr() == packed.get_input_embeddings().weight.data_ptr()
    assert torch.equal(packed.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_what_is_not_quantized_is_copied_as_it_is(build: Callable[..., Any], tmp_path: Path) -> None:
    model = build("llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    quantize_model(tmp_path / "model", tmp_path / "rtn", Recipe(method="rtn", group_size=32))
    source, made = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "rtn"))
    same = [name for name in made if name in source]
    assert len(same) == len(source) - 14
    assert all(made[name].dtype == torch.bfloat16 and torch.equal(made[name], source[name]) for name in same)


def test_a_mixture_of_experts_keeps_its_names_on_disk(
    build: Callable[..., Any], windows: Windows, tmp_path: Path
) -> None:
    build("mixtral").save_pretrained(tmp_path / "model")
    metadata = quantize_model(tmp_path / "model", tmp_path / "awq", AWQ, windows=windows)
    names = set(load_file(tmp_path / "awq" / "model.safetensors"))
    assert "model.layers.0.block_sparse_moe.experts.3.w1.qweight" in names
    assert "model.layers.1.block_sparse_moe.gate.weight" in names
    assert not any("gate_up_proj" in name for name in names)
    rows = {row["name"]: row for row in metadata["linears"]}
    seen = [rows[f"model.layers.0.mlp.experts.{e}.gate_proj"]["tokens"] for e in range(4)]
    assert sum(seen) == 2 * windows.tokens


@pytest.mark.parametrize("layout", ["autoawq", "compressed-tensors"])
@pytest.mark.parametrize("kind", ["mixtral", "qwen2-moe", "deepseek-v3"])
def test_routers_are_said_to_be_unquantized_as_other_engines_have_them_for_linears(
    build: Callable[..., Any], tmp_path: Path, kind: str, layout: str
) -> None:
    build(kind).save_pretrained(tmp_path / "model")
    quantize_model(
        tmp_path / "model", tmp_path / "out", Recipe(method="rtn", group_size=16), layout=layout, indivisible="keep"
    )
    assert inspect_checkpoint(tmp_path / "out")["findings"] == []
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    router = "model.layers.1.block_sparse_moe.gate" if kind == "mixtral" else "model.layers.1.mlp.gate"
    assert router in said.get("modules_to_not_convert", said.get("ignore"))


@pytest.mark.parametrize("experts", ["experts", r"experts\\.1"])
def test_kept_experts_that_have_no_names_of_their_own_are_read_back(
    build: Callable[..., Any], ids: torch.Tensor, windows: Windows, tmp_path: Path, experts: str
) -> None:
    build("gpt-oss").save_pretrained(tmp_path / "model")
    (tmp_path / "o.toml").write_text(f'[skip]\nlinears = ["re:.*layers\\\\.0\\\\..*{experts}\\\\..*"]\n')
    recipe, batch = Recipe(method="rtn", bits=8, group_size=16), ids[:40].unsqueeze(0)
    quantize_model(
        tmp_path / "model", tmp_path / "out", recipe, layout="compressed-tensors", overrides=tmp_path / "o.toml"
    )
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)(batch).logits
        assert (load_quantized(tmp_path / "out")(batch).logits - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize(("bits", "layout"), [(16, "autoawq"), (16, "compressed-tensors"), (8, "compressed-tensors")])
def test_the_worst_linears_keep_more_bits(
    llama_folder: Path, ids: torch.Tensor, windows: Windows, tmp_path: Path, bits: int, layout: str
) -> None:
    recipe = Recipe(method="awq", bits=3, group_size=32)
    plain = quantize_model(llama_folder, tmp_path / "plain", recipe, windows=windows, layout=layout)
    mixed = quantize_model(
        llama_folder, tmp_path / "mixed", recipe, windows=windows, layout=layout, mixing=Mixing(worst=4, bits=bits)
    )
    raised = [row["name"] for row in mixed["mixed"]["linears"]]
    assert len(raised) >= 4
    assert plain["mixed"] is None
    found = read_quantized(tmp_path / "mixed")
    assert {name for name in raised if name in found} == (set(raised) if bits == 8 else set())
    assert all(each.bits == (8 if name in raised else 3) or layout == "autoawq" for name, each in found.items())
    batch = ids[1000:1100].unsqueeze(0)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32)(batch).logits
        errors = [
            float((load_quantized(tmp_path / name, torch.float32)(batch).logits - expected).norm())
            for name in ("plain", "mixed")
        ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize(("bits", "off"), [(16, 1e-5), (8, 0.02)])
def test_linears_that_the_architecture_stores_transposed_are_kept_so(
    build: Callable[..., Any], ids: torch.Tensor, windows: Windows, tmp_path: Path, bits: int, off: float
) -> None:
    build("gpt2").save_pretrained(tmp_path / "model")
    quantize_model(
        tmp_path / "model", tmp_path / "out", AWQ, windows=windows, layout="compressed-tensors",
        mixing=Mixing(keep=["re:.*h.0.*", "attn.c_proj"], bits=bits),
    )  # fmt: skip
    with torch.no_grad():
        first, second = (
            model(ids[:40].unsqueeze(0), output_hidden_states=True).hidden_states[1]
            for model in (AutoModelForCausalLM.from_pretrained(tmp_path / "model"), load_quantized(tmp_path / "out"))
        )
    assert (second - first).norm() < off * first.norm()


def test_a_dry_run_says_what_it_would_need(llama_folder: Path, windows: Windows, tmp_path: Path) -> None:
    plan = quantize_model(llama_folder, tmp_path / "out", AWQ, windows=windows, dry_run=True)
    assert plan["blocks"] == 2
    assert len(plan["linears"]) == 14
    assert plan["needs"]["peak"] > plan["needs"]["memory"]["process"]
    assert "14 linears in 2 blocks" in plan["summary"]
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_said_before_anything_is_done(
    llama_folder: Path, windows: Windows, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"needs about .* of memory.*--max-memory: 1 MB"):
        quantize_model(llama_folder, tmp_path / "out", AWQ, windows=windows, max_memory=10**6)
    assert not list(tmp_path.iterdir())


def test_progress_counts_blocks(llama_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    quantize_model(
        llama_folder, tmp_path / "rtn", Recipe(method="rtn"), progress=lambda done, total, _: seen.append((done, total))
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_indivisible_linears_are_refused_or_kept(
    build: Callable[..., Any], ids: torch.Tensor, windows: Windows, tmp_path: Path
) -> None:
    build("llama", intermediate_size=176).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"2 of 14 linears.*down_proj \(176 to 64\)"):
        quantize_model(tmp_path / "model", tmp_path / "awq", AWQ, windows=windows)
    assert not (tmp_path / "awq").exists()

    metadata = quantize_model(tmp_path / "model", tmp_path / "awq", AWQ, windows=windows, indivisible="keep")
    down = [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    assert metadata["kept"] == down
    assert not set(down) & set(read_quantized(tmp_path / "awq"))
    config = json.loads((tmp_path / "awq" / "config.json").read_text())
    assert {*down, "lm_head"} <= set(config["quantization_config"]["modules_to_not_convert"])
    with torch.no_grad():
        assert load_quantized(tmp_path / "awq", torch.float32)(ids[:9].unsqueeze(0)).logits.isfinite().all()


def test_transposed_linears_that_are_kept_stay_transposed(
    build: Callable[..., Any], ids: torch.Tensor, windows: Windows, tmp_path: Path
) -> None:
    model = build("gpt2", n_inner=72)
    model.save_pretrained(tmp_path / "model")
    metadata = quantize_model(tmp_path / "model", tmp_path / "awq", AWQ, windows=windows, indivisible="keep")
    assert metadata["kept"] == ["transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"]
    batch = ids[:64].unsqueeze(0)
    with torch.no_grad():
        expected = model(batch).logits
        logits = load_quantized(tmp_path / "awq", torch.float32)(batch).logits
    assert (logits - expected).norm() < 0.2 * expected.norm()


def test_linears_can_be_left_out_by_name(llama_folder: Path, windows: Windows, tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text('[skip]\nlinears = ["re:.*layers\\\\.0\\\\.mlp.*", "o_proj"]\n')
    metadata = quantize_model(llama_folder, tmp_path / "awq", AWQ, windows=windows, overrides=tmp_path / "o.toml")
    assert metadata["kept"] == sorted(
        [f"model.layers.0.mlp.{name}_proj" for name in ("down", "gate", "up")]
        + [f"model.layers.{i}.self_attn.o_proj" for i in (0, 1)]
    )
    assert len(metadata["linears"]) == 9


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"recipe": Recipe(method="sparse")}, "unknown method 'sparse'.*awq, awq.gptq, gptq, rtn"),  # type: ignore[arg-type]
        ({"recipe": Recipe(bits=5)}, "unknown bits 5.*2, 3, 4, 8"),
        ({"recipe": Recipe(bits=8)}, "compressed-tensors"),
        ({"recipe": Recipe(search="diagonal")}, "unknown search"),  # type: ignore[arg-type]
        ({"recipe": Recipe(group_size=0)}, "group size is 0"),
        ({"recipe": Recipe(group_size=48)}, "group size 48 does not fit"),
        ({"recipe": Recipe(damping=0.0)}, "damping is 0"),
        ({"indivisible": "skip"}, "unknown indivisible policy"),
        ({"layout": "marlin"}, "unknown format 'marlin'"),
        ({"windows": None}, "awq needs a calibration text"),
        ({"mixing": Mixing(worst=2, bits=8)}, "compressed-tensors"),
        ({"recipe": Recipe(method="rtn"), "windows": None, "mixing": Mixing(worst=1)}, "need a calibration text"),
        ({"overrides": Path("missing.toml")}, r"missing\.toml"),
    ],
)
def test_bad_arguments_are_one_line_before_anything_is_written(
    llama_folder: Path, windows: Windows, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        quantize_model(llama_folder, tmp_path / "awq", **{"recipe": AWQ, "windows": windows, **wrong})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_bad_folders_are_one_line(llama_folder: Path, tmp_path: Path) -> None:
    rtn = Recipe(method="rtn")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        quantize_model(tmp_path / "empty", tmp_path / "out", rtn)

    BertForMaskedLM(
        BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="no causal language model but BertForMaskedLM"):
        quantize_model(tmp_path / "bert", tmp_path / "out", rtn)

    quantize_model(llama_folder, tmp_path / "done", rtn)
    with pytest.raises(UserError, match="is quantized already"):
        quantize_model(tmp_path / "done", tmp_path / "out", rtn)
    assert not (tmp_path / "out").exists()


def test_a_truncated_shard_is_named(llama_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in llama_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    shard = folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"model\.safetensors is truncated") as error:
        quantize_model(folder, tmp_path / "out", Recipe(method="rtn"))
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("layout", ["autoawq", "compressed-tensors"])
@pytest.mark.parametrize("method", ["rtn", "awq"])
def test_weights_that_are_not_finite_are_named(
    build: Callable[..., Any], windows: Windows, tmp_path: Path, method: Any, layout: str
) -> None:
    model = build("llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = torch.nan
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight of .*model holds values that are not finite"):
        quantize_model(
            tmp_path / "model", tmp_path / "out", Recipe(method=method, group_size=32), windows=windows, layout=layout
        )
    assert not (tmp_path / "out").exists()


def test_half_precision_sources_stay_half_unless_a_value_would_change(
    build: Callable[..., Any], windows: Windows, tmp_path: Path
) -> None:
    build("llama").to(torch.bfloat16).save_pretrained(tmp_path / "model")
    metadata = quantize_model(tmp_path / "model", tmp_path / "awq", AWQ, windows=windows)
    scaled = {f"{row['absorber']}.weight" for row in metadata["groups"] if row["status"] == "scaled"}
    stored = load_file(tmp_path / "awq" / "model.safetensors")
    norms = {name: tensor.dtype for name, tensor in stored.items() if "layernorm" in name}
    assert {name for name, dtype in norms.items() if dtype == torch.float32} == scaled & set(norms)
    assert torch.float32 in norms.values()
    assert stored["model.embed_tokens.weight"].dtype == stored["model.norm.weight"].dtype == torch.bfloat16


def test_a_linear_kept_at_sixteen_bits_takes_sixteen(
    build: Callable[..., Any], windows: Windows, tmp_path: Path
) -> None:
    build("llama").to(torch.bfloat16).save_pretrained(tmp_path / "model")
    made = quantize_model(tmp_path / "model", tmp_path / "awq", AWQ, windows=windows, mixing=Mixing(worst=3))
    stored = load_file(tmp_path / "awq" / "model.safetensors")
    kept = [row["name"] for row in made["mixed"]["linears"]]
    assert len(kept) >= 3
    assert all(stored[f"{name}.weight"].dtype == torch.bfloat16 for name in kept)


def test_the_scaled_model_is_the_same_function_in_full_precision(
    llama_folder: Path, ids: torch.Tensor, windows: Windows, tmp_path: Path
) -> None:
    made = quantize_model(llama_folder, tmp_path / "scaled", AWQ, windows=windows, scaled_only=True)
    assert made["model"] == "llama"
    assert any(row["status"] == "scaled" for row in made["groups"])
    batch = ids[:64].unsqueeze(0)
    with torch.no_grad():
        expected, logits = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(batch).logits
            for folder in (llama_folder, tmp_path / "scaled")
        )
    assert (logits - expected).norm() < 1e-4 * expected.norm()
    source, scaled = (load_file(folder / "model.safetensors") for folder in (llama_folder, tmp_path / "scaled"))
    assert source.keys() == scaled.keys()
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(source[name], scaled[name])
    with pytest.raises(UserError, match="gptq does not scale"):
        quantize_model(llama_folder, tmp_path / "x", Recipe(method="gptq"), windows=windows, scaled_only=True)


def test_values_that_several_heads_share_absorb_a_scale_where_asked(
    llama_folder: Path, windows: Windows, tmp_path: Path
) -> None:
    asked = Recipe(method="awq", group_size=32, grouped_queries=True)
    for name, recipe in (("off", AWQ), ("on", asked)):
        made = quantize_model(llama_folder, tmp_path / name, recipe, windows=windows)
        absorbers = {row["absorber"] for row in made["groups"] if "o_proj" in row["linears"][0]}
        wanted = {f"model.layers.{i}.self_attn.v_proj" for i in (0, 1)} if name == "on" else {None}
        assert absorbers == wanted
