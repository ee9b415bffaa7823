"""Against llama.cpp's real server: what it is found to offer, and whether it says what transformers says."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from awqbench.errors import NotApplicable, UserError

# float16 weights, float16 keys and values, against float32 throughout: seen 0.012 at most on this model.
NATS = 0.04


@pytest.fixture(scope="module")
def model(byte_pair_llama):
    """The same weights in transformers, float32."""
    return AutoModelForCausalLM.from_pretrained(byte_pair_llama, dtype=torch.float32).eval()


@pytest.fixture
def loaded(backend, llamacpp_url):
    """The backend on the real server."""
    return backend(llamacpp_url)


def sequence(length, seed=0):
    """Random ids; among them bytes that begin a character and no more."""
    return np.random.default_rng(seed).integers(3, 264, length).tolist()


def expected(model, ids):
    """Log-probabilities after each prefix, float32 [len(ids), vocabulary]."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()


def test_what_it_offers_is_found_by_asking(loaded, llamacpp_url):
    found = loaded.found
    assert set(found["capabilities"]) == {"score", "topk-logprobs", "decode-logprobs", "generate", "time", "tokenize"}
    assert (found["engine"], found["vocab_size"], found["max_positions"]) == ("llama.cpp", 264, 256)
    assert (found["topk"], found["topk_path"], found["score_path"]) == (264, "decode", "decode")
    assert (found["dtype"], found["load_s"], found["weight_type"]) == ("unknown", None, "F16")
    assert found["weight_bytes"] > 100_000
    assert found["server"]["url"] == llamacpp_url
    assert set(found["server"]["asked"].values()) == {"yes"}
    assert loaded.memory() == {}


def test_scores_are_the_models(loaded, model):
    sequences, starts = [sequence(60), sequence(25, seed=1), sequence(9, seed=2)], [1, 20, 9]
    scored = list(loaded.score(sequences, starts))
    for ids, start, found in zip(sequences, starts, scored, strict=True):
        rows = expected(model, ids)[start - 1 : -1]
        own = rows[np.arange(len(rows)), ids[start:]]
        assert found.logprobs.dtype == np.float32
        assert found.argmax.dtype == np.int32
        np.testing.assert_allclose(found.logprobs, own, atol=NATS)
        assert np.sum(found.argmax != rows.argmax(1)) <= len(rows) // 20


def test_a_token_that_only_begins_a_character_is_scored_too(loaded, model):
    ids = [10, 130, 11, 161, 161, 2, 12]
    [found] = loaded.score([ids], [1])
    np.testing.assert_allclose(found.logprobs, expected(model, ids)[np.arange(6), ids[1:]], atol=NATS)


def test_whole_distributions_on_the_decode_path(loaded, model):
    ids = sequence(30)
    rows = np.concatenate(list(loaded.logprobs(ids, 5, "decode")))
    assert rows.shape == (25, 264)
    np.testing.assert_allclose(rows, expected(model, ids)[4:-1], atol=NATS)
    np.testing.assert_allclose(np.exp(rows.astype(np.float64)).sum(1), 1.0, atol=1e-6)
    with pytest.raises(NotApplicable, match="no server tells whole distributions"):
        loaded.logprobs(ids, 5, "prefill")


def test_the_most_likely_tokens(loaded, model):
    ids = sequence(80)
    top = list(loaded.topk_logprobs(ids, 1, 7))
    found, values = (np.concatenate([getattr(part, name) for part in top]) for name in ("ids", "logprobs"))
    rows = expected(model, ids)[:-1]
    assert found.shape == values.shape == (79, 7)
    np.testing.assert_allclose(values, np.take_along_axis(rows, found.astype(int), 1), atol=NATS)
    np.testing.assert_allclose(values, -np.sort(-rows, 1)[:, :7], atol=NATS)
    with pytest.raises(NotApplicable, match=r"k is 265 .allowed: 1 to 264"):
        loaded.topk_logprobs(ids, 1, 265)


def test_whole_distributions_can_be_left_out(backend, llamacpp_url):
    found = backend(llamacpp_url, distributions="top", topk=50)
    assert "decode-logprobs" not in found.found["capabilities"]
    assert found.found["topk"] == 50


def test_greedy_generation(loaded, model):
    prompts = [sequence(10, seed=seed) for seed in range(6)]
    with torch.no_grad():
        wanted = [
            model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False, eos_token_id=None)[0, 10:].tolist()
            for ids in prompts
        ]
    assert loaded.generate(prompts, 16, []) == wanted
    stop = wanted[0][3]
    assert loaded.generate(prompts[:1], 16, [stop]) == [wanted[0][: wanted[0].index(stop)]]


def test_concurrent_requests_change_no_answer(backend, llamacpp_url):
    prompts = [sequence(12, seed=seed) for seed in range(8)]
    one, many = backend(llamacpp_url, concurrency=1), backend(llamacpp_url, concurrency=8)
    assert (one.found["server"]["concurrency"], many.found["server"]["concurrency"]) == (1, 2)
    assert one.generate(prompts, 8, []) == many.generate(prompts, 8, [])
    alone, together = (list(b.score(prompts, [1] * 8)) for b in (one, many))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=NATS)


def test_timing(loaded):
    timing = loaded.time([sequence(10), sequence(10, seed=1)], 12)
    assert timing.ttft_s > 0
    assert len(timing.gaps_s) == 11
    assert min(timing.gaps_s) >= 0
    with pytest.raises(NotApplicable, match=r"a batch of 3 would wait in line: the server has 2 slots"):
        loaded.time([sequence(10)] * 3, 12)


def test_tokens_are_the_tokenizers(loaded, byte_pair_llama):
    texts = ["then he said 1987", "naïve\n\ncafé", "", "</s>"]
    tokenizer = AutoTokenizer.from_pretrained(byte_pair_llama)
    assert loaded.tokenize(texts, special=False) == [tokenizer.encode(t, add_special_tokens=False) for t in texts]
    assert loaded.tokenize(["a"], special=True)[0][-1] == tokenizer.encode("a", add_special_tokens=False)[0]


def test_parity_needs_a_second_server(backend, llamacpp_url):
    with pytest.raises(NotApplicable, match=r"parity is unmeasured .options.parity_base_url"):
        backend(llamacpp_url, unquantized=True)
    second = backend("http://127.0.0.1:9/v1", unquantized=True, parity_base_url=llamacpp_url)
    assert second.found["engine"] == "llama.cpp"


def test_a_prompt_beyond_the_context_is_an_error_of_the_server(loaded):
    with pytest.raises(Exception, match=r"answered 400: .*context") as caught:
        list(loaded.score([sequence(300)], [299]))
    assert type(caught.value).__name__ == "InvalidMeasurement"


def test_a_wrong_model_is_named(backend, llamacpp_url):
    with pytest.raises(UserError, match=r"options.model is 'gpt', which the server does not list .allowed: "):
        backend(llamacpp_url, model="gpt")


def test_no_engine_is_needed_to_import_it():
    """Standard library and numpy: the worker may run in any interpreter."""
    code = "import sys, awqbench.backends.openai.backend; print({'torch', 'pydantic', 'requests'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
