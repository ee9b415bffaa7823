from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from awqbench.errors import UserError
from awqbench.formats.checkpoint import load_quantized, read_quantized
from awqbench.quantization.blockwise import Recipe
from awqbench.quantization.calibrate import cut_windows
from awqbench.quantization.loading import load
from awqbench.quantization.pipeline import quantize_blocks, quantize_model

AWQ: dict[str, Any] = {"method": "awq", "bits": 4, "group_size": 32, "samples": 4, "seq_len": 32}


@pytest.fixture(scope="module")
def made(
    llama_folder: Path, ids: torch.Tensor, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("made") / "awq"
    return out, quantize_model(llama_folder, out, calibration_ids=ids, calibration_name="noise", **AWQ)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "neox", "opt", "phi3", "olmo2"])
@pytest.mark.parametrize("bits", [3, 4])
def test_packed_and_fake_quantized_models_agree(
    build: Callable[..., Any], ids: torch.Tensor, tmp_path: Path, architecture: str, bits: int
) -> None:
    model = build(architecture)
    model.save_pretrained(tmp_path / "model")
    quantize_model(tmp_path / "model", tmp_path / "awq", calibration_ids=ids, **{**AWQ, "bits": bits})
    quantize_blocks(model, Recipe("awq", bits, 32, True, "module", 0), [], cut_windows(ids, 4, 32))
    packed = load_quantized(tmp_path / "awq", torch.float32)
    for length in (1, 2, 7, 64, 512):
        batch = ids[:length].unsqueeze(0)
        with torch.no_grad():
            expected, logits = model(batch).logits, packed(batch).logits
        assert (logits - expected).norm() < 1e-2 * expected.norm()


def test_metadata_accounts_for_every_linear_and_group(made: tuple[Path, dict[str, Any]], ids: torch.Tensor) -> None:
    out, metadata = made
    written = json.loads((out / "quantize.json").read_text())
    assert {key: written[key] for key in metadata} == metadata
    assert metadata["recipe"] == {
        "method": "awq", "bits": 4, "group_size": 32, "clip": True, "search": "module", "seed": 0, "dtype": "float32",
    }  # fmt: skip
    calibration = metadata["calibration"]
    assert calibration["tokens"] == 128
    assert calibration["name"] == "noise"
    assert calibration["sha256"] == cut_windows(ids, 4, 32).sha256
    assert len(metadata["linears"]) == 14
    assert sum(row["share"] for row in metadata["linears"]) == pytest.approx(1)
    assert all(row["tokens"] == 128 for row in metadata["linears"])
    unscaled = [group for group in metadata["groups"] if group["status"] == "left alone"]
    assert [group["linears"] for group in unscaled] == [[f"model.layers.{i}.self_attn.o_proj"] for i in (0, 1)]
    assert all(group["reason"] for group in unscaled)
    assert metadata["kept"] == metadata["warnings"] == []
    assert set(metadata["seconds"]) == {"load", "quantize"}


def test_two_runs_give_the_same_bytes(
    made: tuple[Path, dict[str, Any]], llama_folder: Path, ids: torch.Tensor, tmp_path: Path
) -> None:
    again = quantize_model(llama_folder, tmp_path / "awq", calibration_ids=ids, calibration_name="noise", **AWQ)
    shards = [sorted(folder.glob("*.safetensors")) for folder in (made[0], tmp_path / "awq")]
    first, second = ([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] for paths in shards)
    assert first == second
    assert {**again, "seconds": None} == {**made[1], "seconds": None}


def test_awq_is_nearer_to_the_model_than_rounding_to_nearest(
    llama_folder: Path, ids: torch.Tensor, tmp_path: Path
) -> None:
    batch = ids[1000:1200].unsqueeze(0)
    expected = load(llama_folder, torch.float32, "cpu", False)(batch).logits.log_softmax(-1)
    divergence = {}
    for method in ("awq", "rtn"):
        quantize_model(
            llama_folder, tmp_path / method, calibration_ids=ids[:1000], **{**AWQ, "method": method, "bits": 3}
        )
        logits = load_quantized(tmp_path / method, torch.float32)(batch).logits.log_softmax(-1)
        divergence[method] = float((expected.exp() * (expected - logits)).sum(-1).mean())
    assert divergence["awq"] < divergence["rtn"]


def test_rounding_to_nearest_without_a_calibration_text(llama_folder: Path, tmp_path: Path) -> None:
    metadata = quantize_model(llama_folder, tmp_path / "rtn", method="rtn", bits=4, group_size=64)
    assert metadata["calibration"] is None
    assert metadata["recipe"]["clip"] is False
    assert metadata["recipe"]["search"] is None
    assert all(row["output_error"] is None and row["tokens"] == 0 for row in metadata["linears"])
    assert len(read_quantized(tmp_path / "rtn")) == 14


def test_rounding_to_nearest_with_one_measures_its_output_error(
    llama_folder: Path, ids: torch.Tensor, tmp_path: Path
) -> None:
    metadata = quantize_model(llama_folder, tmp_path / "rtn", calibration_ids=ids, **{**AWQ, "method": "rtn"})
    assert all(row["output_error"] == row["output_error_rtn"] > 0 for row in metadata["linears"])
    assert not any(group["absorber"] for group in metadata["groups"])


def test_tied_embeddings_stay_tied_and_untouched(build: Callable[..., Any], ids: torch.Tensor, tmp_path: Path) -> None:
    model = build("llama", tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "model")
    quantize_model(tmp_path / "model", tmp_path / "awq", calibration_ids=ids, **AWQ)
    packed = load_quantized(tmp_path / "awq", torch.float32)
    assert packed.get_output_embeddings().weight.data_ptr() == packed.get_input_embeddings().weight.data_ptr()
    assert torch.equal(packed.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_short_text_is_recorded_as_what_it_gave(llama_folder: Path, ids: torch.Tensor, tmp_path: Path) -> None:
    metadata = quantize_model(llama_folder, tmp_path / "awq", calibration_ids=ids[:70], **AWQ)
    assert metadata["calibration"]["tokens"] == 64
    assert (metadata["calibration"]["samples"], metadata["calibration"]["samples_asked"]) == (2, 4)
    assert metadata["warnings"] == ["the calibration text holds 2 of the 4 windows asked for"]
    assert all(row["tokens"] == 64 for row in metadata["linears"])


def test_progress_counts_blocks(llama_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    quantize_model(
        llama_folder, tmp_path / "rtn", method="rtn", bits=4, progress=lambda done, total, _: seen.append((done, total))
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_indivisible_linears_are_refused_or_kept(build: Callable[..., Any], ids: torch.Tensor, tmp_path: Path) -> None:
    build("llama", intermediate_size=176).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"2 of 14 linears.*down_proj \(176 to 64\)"):
        quantize_model(tmp_path / "model", tmp_path / "awq", calibration_ids=ids, **AWQ)
    assert not (tmp_path / "awq").exists()

    metadata = quantize_model(tmp_path / "model", tmp_path / "awq", calibration_ids=ids, indivisible="keep", **AWQ)
    down = [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    assert metadata["kept"] == down
    assert not set(down) & set(read_quantized(tmp_path / "awq"))
    config = json.loads((tmp_path / "awq" / "config.json").read_text())
    assert {*down, "lm_head"} <= set(config["quantization_config"]["modules_to_not_convert"])
    with torch.no_grad():
        assert load_quantized(tmp_path / "awq", torch.float32)(ids[:9].unsqueeze(0)).logits.isfinite().all()


def test_transposed_linears_that_are_kept_stay_transposed(
    build: Callable[..., Any], ids: torch.Tensor, tmp_path: Path
) -> None:
    model = build("gpt2", n_inner=72)
    model.save_pretrained(tmp_path / "model")
    metadata = quantize_model(tmp_path / "model", tmp_path / "awq", calibration_ids=ids, indivisible="keep", **AWQ)
    assert metadata["kept"] == ["transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"]
    batch = ids[:64].unsqueeze(0)
    with torch.no_grad():
        expected = model(batch).logits
        logits = load_quantized(tmp_path / "awq", torch.float32)(batch).logits
    assert (logits - expected).norm() < 0.2 * expected.norm()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "gptq"}, "unknown method 'gptq'.*awq, rtn"),
        ({"bits": 5}, "unknown bits 5.*3, 4"),
        ({"search": "diagonal"}, "unknown search"),
        ({"indivisible": "skip"}, "unknown indivisible policy"),
        ({"group_size": 0}, "group size is 0"),
        ({"group_size": 48}, "group size 48 does not fit"),
        ({"samples": 0}, "samples is 0"),
        ({"seq_len": 4000}, "2000 tokens, fewer than one window of 4000"),
        ({"calibration_ids": None}, "awq needs a calibration text"),
    ],
)
def test_bad_arguments_are_one_line_before_anything_is_written(
    llama_folder: Path, ids: torch.Tensor, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        quantize_model(llama_folder, tmp_path / "awq", **{"calibration_ids": ids, **AWQ, **wrong})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_bad_folders_are_one_line(llama_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        quantize_model(tmp_path / "empty", tmp_path / "out", method="rtn")

    BertForMaskedLM(
        BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="no causal language model but BertForMaskedLM"):
        quantize_model(tmp_path / "bert", tmp_path / "out", method="rtn")

    quantize_model(llama_folder, tmp_path / "done", method="rtn")
    with pytest.raises(UserError, match="is quantized already"):
        quantize_model(tmp_path / "done", tmp_path / "out", method="rtn")
    assert not (tmp_path / "out").exists()


def test_a_truncated_shard_is_named(llama_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in llama_folder.iterdir():
        content = path.read_bytes()
        (model / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    with pytest.raises(UserError, match=r"model\.safetensors is truncated"):
        quantize_model(model, tmp_path / "out", method="rtn")
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_is_named(llama_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_bytes((llama_folder / "config.json").read_bytes())
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"names the shard model-00001-of-00002\.safetensors, which is missing"):
        quantize_model(model, tmp_path / "out", method="rtn")


def test_bfloat16_gives_almost_the_same_scales(
    made: tuple[Path, dict[str, Any]], llama_folder: Path, ids: torch.Tensor, tmp_path: Path
) -> None:
    half = quantize_model(llama_folder, tmp_path / "awq", calibration_ids=ids, dtype=torch.bfloat16, **AWQ)
    assert half["recipe"]["dtype"] == "bfloat16"
    for row, expected in zip(half["linears"], made[1]["linears"], strict=True):
        assert row["output_error"] == pytest.approx(expected["output_error"], rel=0.15)
