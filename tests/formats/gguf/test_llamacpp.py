"""llama.cpp itself, where it is installed, gives the log-probabilities of the model that the file was made from."""

import json
import urllib.request

import pytest
import torch
from tokenizers import Tokenizer

from awqbench.formats.gguf.export import export_gguf

xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: llama.cpp cannot be asked")
TEXT = "In 1987, 3.14 times the other\n\n  he'll go  to (the) old house, wherever."


class Engine:
    """llama.cpp's own server on a file."""

    def __init__(self, file):
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(file)
        parameters.n_ctx, parameters.n_parallel, parameters.port = 128, 1, 0
        parameters.hostnames = ["127.0.0.1"]
        parameters.cpuparams.n_threads = 1
        self.server = xllamacpp.Server(parameters)

    def ask(self, path, **body):
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.server.listening_address + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def log_probabilities(self, ids, vocabulary):
        """After each prefix of `ids`, float32 [len(ids), vocabulary]."""
        rows = torch.full((len(ids), vocabulary), -torch.inf)
        for index in range(len(ids)):
            # Tokens that are no text by themselves come without probabilities, so one that is text is forced: what is
            # reported are the model's probabilities, before the bias.
            body = {"prompt": ids[: index + 1], "n_predict": 1, "n_probs": vocabulary, "cache_prompt": True}
            found = self.ask("/completion", **body, logit_bias=[[ids[0], 1e4]])["completion_probabilities"][0]
            for row in found.get("top_logprobs") or found["top_probs"]:
                rows[index, row["id"]] = row["logprob"]
        return rows


def divergence(model, rows, ids):
    """Mean KL divergence of the file's from the model's predictions, and the share of equal first choices."""
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    seen = rows.isfinite()
    terms = torch.where(seen, ours.exp() * (ours - rows.masked_fill(~seen, 0.0)), 0.0)
    return float(terms.sum(-1).mean()), float((ours.argmax(-1) == rows.argmax(-1)).float().mean())


@pytest.mark.parametrize("family", ["llama", "llama3", "mistral", "qwen2", "qwen3"])
def test_every_family(made, tmp_path, family):
    case = made(family)
    export_gguf(case.folder, tmp_path / "x.gguf", kind="f16")
    engine = Engine(tmp_path / "x.gguf")
    ids = Tokenizer.from_file(str(case.folder / "tokenizer.json")).encode(TEXT).ids
    assert engine.ask("/tokenize", content=TEXT)["tokens"] == ids
    ids = ids[:40]
    kl, agreement = divergence(case.model, engine.log_probabilities(ids, case.model.config.vocab_size), ids)
    assert kl < 1e-4
    assert agreement >= 0.975


@pytest.mark.parametrize(("format_name", "scheme"), [
    ("autoawq", {}), ("autoawq", {"symmetric": True}), ("compressed-tensors", {"bits": 8, "symmetric": True}),
    ("compressed-tensors", {"bits": 3, "group_size": -1}),
])  # fmt: skip
def test_every_block_type(made, tmp_path, format_name, scheme):
    """llama.cpp rounds activations to 8 bits before it multiplies them with blocks: more than float16 loses."""
    case = made("llama", format_name, **scheme)
    export_gguf(case.folder, tmp_path / "x.gguf")
    ids = Tokenizer.from_file(str(case.folder / "tokenizer.json")).encode(TEXT).ids[:30]
    rows = Engine(tmp_path / "x.gguf").log_probabilities(ids, case.model.config.vocab_size)
    assert divergence(case.model, rows, ids)[0] < 0.02


@pytest.mark.data
def test_a_trained_model_with_a_sentencepiece_tokenizer(data_dir, tmp_path):
    from transformers import AutoModelForCausalLM

    folder = data_dir / "models" / "stories260k"
    export_gguf(folder, tmp_path / "x.gguf")
    engine = Engine(tmp_path / "x.gguf")
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("Once upon a time, Lily saw a big dog.").ids
    asked = engine.ask("/tokenize", content="Once upon a time, Lily saw a big dog.", add_special=True)
    assert asked["tokens"] == ids
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    kl, agreement = divergence(model, engine.log_probabilities(ids, 512), ids)
    assert kl < 1e-4
    assert agreement == 1.0
