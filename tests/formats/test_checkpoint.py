import json

import pytest
import torch

from awqbench.errors import UserError
from awqbench.formats import checkpoint as module
from awqbench.formats.checkpoint import load_quantized, read_quantized, weights_hash, write_checkpoint


def logits(model, length=9):
    ids = torch.arange(2, 2 + length)[None]
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("bits", [3, 4])
def test_round_trip_of_every_kind_of_model(any_kind, bits, written):
    case = written(any_kind, bits=bits)
    back = read_quantized(case.out)
    assert back.keys() == case.quantized.keys()
    for name, tensor in case.quantized.items():
        assert all(torch.equal(getattr(tensor, f), getattr(back[name], f)) for f in ("codes", "scales", "zeros")), name
        assert (back[name].bits, back[name].group_size) == (bits, 32)
    loaded = load_quantized(case.out)
    torch.testing.assert_close(logits(loaded), logits(case.model), rtol=1e-4, atol=1e-5)
    for name, tensor in case.quantized.items():
        assert torch.equal(loaded.get_submodule(name).to_quantized().codes, tensor.codes), name


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_packed_and_fake_quantized_agree_at_every_length(length, written):
    case = written()
    expected, got = logits(case.model, length), logits(load_quantized(case.out), length)
    assert (got - expected).norm() < 1e-5 * expected.norm()


def test_tied_embeddings_are_stored_once_and_stay_tied(written):
    case = written("llama-tied")
    loaded = load_quantized(case.out)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert "lm_head.weight" not in module.inspect_checkpoint(case.out)["shapes"]
    assert case.model.lm_head.weight.data_ptr() == case.model.model.embed_tokens.weight.data_ptr()


def test_untied_embeddings_stay_apart(written):
    loaded = load_quantized(written("llama-untied").out)
    assert loaded.lm_head.weight is not loaded.model.embed_tokens.weight


def test_loaded_model_is_ready_for_inference(written):
    loaded = load_quantized(written().out, dtype=torch.bfloat16)
    assert not loaded.training
    assert not any(p.requires_grad or p.is_meta for p in loaded.parameters())
    assert not any(b.is_meta for b in loaded.buffers())
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert logits(loaded).isfinite().all()
    assert loaded.generate(torch.tensor([[2, 3]]), max_new_tokens=3, do_sample=False).shape == (1, 5)


def test_companions_are_copied_and_nothing_else_is_left_beside(written, tmp_path):
    case = written()
    names = {path.name for path in case.out.iterdir()}
    assert names == {
        "config.json", "quantize.json", "model.safetensors", "tokenizer.json", "chat_template.jinja",
        "generation_config.json",
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


def test_several_shards_hold_the_same(written):
    case = written(max_shard_size=20_000)
    assert len(list(case.out.glob("*.safetensors"))) > 2
    torch.testing.assert_close(logits(load_quantized(case.out)), logits(case.model), rtol=1e-4, atol=1e-5)


def test_the_dtype_of_what_is_not_quantized_is_the_callers_choice(written):
    case = written("llama-untied", store_dtype=torch.float16)
    config = json.loads((case.out / "config.json").read_text())
    assert config["dtype"] == "float16"
    loaded = load_quantized(case.out)
    expected = case.model.model.embed_tokens.weight.half().float()
    assert torch.equal(loaded.model.embed_tokens.weight, expected)


def write_again(case, **changes):
    arguments = {"bits": 4, "group_size": 32, "not_converted": [], "metadata": {}, **changes}
    write_checkpoint(case.out, case.source, case.model, case.quantized, **arguments)


def test_writing_twice_gives_the_same_bytes(written):
    case = written("llama-untied")
    before = {path.name: path.read_bytes() for path in case.out.iterdir() if path.name != "quantize.json"}
    digest = weights_hash(case.out)
    write_again(case)
    assert {path.name: path.read_bytes() for path in case.out.iterdir() if path.name != "quantize.json"} == before
    assert weights_hash(case.out) == digest


def test_a_failure_leaves_the_earlier_checkpoint_and_no_rubbish(written, tmp_path, monkeypatch):
    case = written()
    before = weights_hash(case.out)

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "_copy_companions", fail)
    with pytest.raises(OSError, match="no space"):
        write_again(case)
    assert weights_hash(case.out) == before
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}
    case.out = tmp_path / "other"
    with pytest.raises(OSError, match="no space"):
        write_again(case)
    assert not case.out.exists()


def test_a_folder_with_something_else_is_not_replaced(written, tmp_path):
    case = written()
    case.out = case.source
    with pytest.raises(UserError, match="something else than a checkpoint"):
        write_again(case)
    case.out = case.source / "tokenizer.json"
    with pytest.raises(UserError, match="not a folder"):
        write_again(case)


def test_integers_must_be_as_announced(written):
    case = written()
    with pytest.raises(ValueError, match="4 bits in groups of 32, not 3 in 32"):
        write_again(case, bits=3)
    case.quantized["model.nowhere"] = next(iter(case.quantized.values()))
    with pytest.raises(ValueError, match=r"no linear 'model\.nowhere'"):
        write_again(case)
