"""Servers' dialects of the completions protocol, spoken by a double (see conftest): are they read right?"""

import numpy as np
import pytest

from awqbench.errors import InvalidMeasurement, NotApplicable, UserError

VLLM = {
    "ids", "echo", "logprobs", "prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids", "ignore_eos",
    "stop_token_ids", "repetition_penalty", "usage",
}  # fmt: skip
IDS = [5, 9, 2, 30, 41, 7, 18]


@pytest.fixture
def tokenizing(double):
    """The double with vLLM's /tokenize: a token is a letter, <s> goes before."""

    def tokenize(body):
        ids = [ord(letter) - ord("a") for letter in body["prompt"]]
        return 200, {"tokens": [1, *ids] if body["add_special_tokens"] else ids, "count": len(ids)}

    double.routes["/tokenize"] = tokenize
    return double


def check_scores(found, double, start=1):
    [scored] = found.score([IDS], [start])
    rows = [double.after(IDS[:at]) for at in range(start, len(IDS))]
    np.testing.assert_allclose(scored.logprobs, [row[t] for row, t in zip(rows, IDS[start:], strict=True)], rtol=1e-6)
    assert scored.argmax.tolist() == [row.argmax() for row in rows]


def check_top(found, double, k):
    top = list(found.topk_logprobs(IDS, 2, k))
    ids, values = (np.concatenate([getattr(part, name) for part in top]) for name in ("ids", "logprobs"))
    for at, row, told in zip(range(2, len(IDS)), ids, values, strict=True):
        expected = double.after(IDS[:at])
        assert row.tolist() == np.argsort(-expected)[:k].tolist()
        np.testing.assert_allclose(told, expected[row], rtol=1e-6)


def test_vllm(backend, tokenizing):
    double = tokenizing
    double.features = VLLM
    double.card["owned_by"] = "vllm"
    double.routes["/version"] = lambda body: (200, {"version": "0.32.0"})
    found = backend(double.url)
    told = found.found
    assert (told["engine"], told["engine_version"]) == ("vLLM", "0.32.0")
    assert set(told["capabilities"]) == {"score", "topk-logprobs", "generate", "time", "tokenize"}
    assert (told["topk"], told["topk_path"], told["score_path"]) == (20, "prefill", "prefill")
    assert told["max_positions"] == 63  # of 64, one is for the token that must be generated
    assert (told["vocab_size"], told["weight_bytes"], told["generated_ids_by"]) == (None, None, "return_token_ids")
    check_scores(found, double)
    check_scores(found, double, start=4)
    check_top(found, double, 6)
    continuation = double.greedy(IDS, 8)
    assert found.generate([IDS, IDS[:3]], 8, []) == [continuation, double.greedy(IDS[:3], 8)]
    stop = continuation[2]
    assert found.generate([IDS], 8, [stop]) == [continuation[: continuation.index(stop)]]
    assert found.tokenize(["abc", ""], special=False) == [[0, 1, 2], []]
    assert found.tokenize(["a"], special=True) == [[1, 0]]
    assert len(found.time([IDS, IDS], 5).gaps_s) == 4
    with pytest.raises(NotApplicable, match="no decode-logprobs"):
        found.logprobs(IDS, 1, "decode")


def test_the_largest_k_is_found_by_asking(backend, double):
    double.features = VLLM
    for most, cap, expected in ((1, 1000, 1), (5, 1000, 5), (49, 1000, 49), (500, 30, 30)):
        double.most = most
        told = backend(double.url, topk=cap).found
        assert told["topk"] == expected
        asked = {q: a for q, a in told["server"]["asked"].items() if q.startswith("prompt_logprobs, k ")}
        assert set(asked) <= {f"prompt_logprobs, k {k}" for k in (1, expected, expected + 1)}


def test_echo_with_ids(backend, double):
    double.features = {"ids", "echo", "logprobs", "return_tokens_as_token_ids"}
    found = backend(double.url)
    assert found.found["logprobs_by"] == "echo and logprobs"
    assert found.found["generated_ids_by"] == "return_tokens_as_token_ids"
    check_scores(found, double)
    check_top(found, double, 4)
    assert found.generate([IDS], 4, []) == [double.greedy(IDS, 4)]


def test_top_tokens_of_a_generated_token_alone(backend, double):
    double.features = {"ids", "logprobs", "return_tokens_as_token_ids"}
    found = backend(double.url)
    assert found.found["topk_path"] == "decode"
    assert "score" not in found.found["capabilities"]
    check_top(found, double, 20)
    with pytest.raises(NotApplicable, match=r"no score .*prompt_logprobs"):
        found.score([IDS], [1])


def test_tokens_named_by_text_are_no_ids(backend, tokenizing):
    """Two tokens may look alike: no log-probabilities, and generated ids from the server's own tokenizer alone."""
    double = tokenizing
    double.features = {"ids", "echo", "logprobs"}
    told = backend(double.url).found
    assert set(told["capabilities"]) == {"tokenize", "generate"}
    assert told["generated_ids_by"] == "tokenize"
    assert "text does not say which token it is" in told["server"]["asked"]["logprobs, k 1"]


def test_tensorrt_llm_gives_ids_in_the_place_of_text(backend, double):
    """It refuses fields that it does not know."""
    double.features = {"ids", "strict", "detokenize", "ignore_eos", "stop_token_ids", "repetition_penalty"}
    del double.card["max_model_len"]
    with pytest.raises(UserError, match=r"does not tell its context's length: set options\.max_positions"):
        backend(double.url)
    found = backend(double.url, max_positions=100, vocab_size=50)
    assert found.found["generated_ids_by"] == "detokenize"
    assert (found.found["max_positions"], found.found["vocab_size"]) == (100, 50)
    assert found.generate([IDS], 6, []) == [double.greedy(IDS, 6)]


def test_a_server_that_takes_text_alone(backend, double):
    double.features = {"echo", "logprobs"}
    with pytest.raises(NotApplicable, match=r"nothing in token ids .*prompt must be a string"):
        backend(double.url)


def test_a_prompt_that_the_server_adds_to(backend, double):
    double.features = VLLM
    honest = double.complete

    def with_bos(body):
        status, answer = honest(body)
        answer["usage"]["prompt_tokens"] += 1
        return status, answer

    double.routes["/v1/completions"] = with_bos
    with pytest.raises(NotApplicable, match="3 token ids was counted as 4 tokens"):
        backend(double.url)


def test_several_tokens_in_an_event_are_not_one(backend, double):
    double.features = VLLM | {"pairs"}
    told = backend(double.url).found
    assert "time" not in told["capabilities"]
    assert any("events of several tokens each" in answer for answer in told["server"]["asked"].values())


def test_pieces_of_text_are_tokens_only_if_the_server_counts_as_many(backend, double):
    double.features = {"ids", "usage"}
    assert "time" in backend(double.url).found["capabilities"]
    double.features = {"ids", "return_tokens_as_token_ids", "logprobs"}
    told = backend(double.url).found
    assert "time" not in told["capabilities"]
    assert "never says how many tokens there were" in told["server"]["asked"]["stream with nothing else"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda choice: choice.pop("prompt_logprobs"), r"has no choices\[0\]\.prompt_logprobs"),
        (lambda choice: choice["prompt_logprobs"].pop(), r"prompt_logprobs has 6 entries, not 7"),
        (lambda choice: choice["prompt_logprobs"].__setitem__(3, 1), r"prompt_logprobs\[3\] is 1, not an object"),
        (lambda choice: choice["prompt_logprobs"][2].pop("2"), r"\[2\] does not hold the prompt's own token 2"),
        (lambda choice: choice["prompt_logprobs"][1]["9"].update(logprob=float("nan")), "NaN, not a log-probability"),
        (lambda choice: choice["prompt_logprobs"][1]["9"].update(logprob=None), "null, not a log-probability"),
        (lambda choice: choice["prompt_logprobs"][1]["9"].update(logprob=0.7), "0.7, not a log-probability"),
        (lambda choice: choice["prompt_logprobs"][1]["9"].update(logprob=-9999.0), "-9999, which stands for"),
        (lambda choice: choice["prompt_logprobs"][1].update(x={"logprob": -1.0}), '"x", not a token id'),
        (lambda choice: choice.update(prompt_token_ids=[1, 2]), "other token ids than it was sent"),
    ],
)
def test_a_wrong_answer_is_named(backend, double, spoil, message):
    double.features = VLLM
    found = backend(double.url)

    def spoiled(body):
        status, answer = double.complete(body)
        spoil(answer["choices"][0])
        return status, answer

    double.routes["/v1/completions"] = spoiled
    with pytest.raises(InvalidMeasurement, match=message):
        list(found.score([IDS], [1]))


def test_probabilities_above_one_are_refused(backend, double):
    double.features = VLLM
    found = backend(double.url)
    honest = double.after
    double.after = lambda ids: honest(ids) / 4
    with pytest.raises(InvalidMeasurement, match="add up to"):
        list(found.topk_logprobs(IDS, 1, 20))


def test_generation_that_is_cut_short(backend, double):
    double.features = VLLM
    found = backend(double.url)

    def short(body):
        return double.complete({**body, "max_tokens": 2})

    double.routes["/v1/completions"] = short
    with pytest.raises(InvalidMeasurement, match="cut short after 2 of 5 tokens"):
        found.generate([IDS], 5, [])
    with pytest.raises(InvalidMeasurement, match="streamed 2 tokens where 5 were asked for"):
        found.time([IDS], 5)


def test_what_the_measurement_rests_on_overrules_extra_body(backend, double):
    double.features = VLLM
    found = backend(double.url, extra_body={"temperature": 1.5, "priority": 3}, headers={"X-Team": "a"})
    found.generate([IDS], 3, [])
    path, body, headers = double.seen[-1]
    assert (path, body["temperature"], body["priority"], headers["X-Team"]) == ("/v1/completions", 0, 3, "a")
    assert headers["User-Agent"] == "awqbench"
