"""SGLang's /generate as its documentation has it, spoken by a double."""

import numpy as np
import pytest

from awqbench.errors import InvalidMeasurement

IDS = [5, 9, 2, 30, 41]


@pytest.fixture
def sglang(double):
    """The double as an SGLang server."""
    double.card["owned_by"] = "sglang"
    double.routes["/get_server_info"] = lambda body: (200, {"version": "0.5.0"})

    def generate(body):
        ids, sampling = body["input_ids"], body["sampling_params"]
        made = double.greedy(ids, sampling["max_new_tokens"])
        stop = next((at + 1 for at, token in enumerate(made) if token in sampling["stop_token_ids"]), None)
        made = made[:stop]
        if body.get("stream"):
            return 200, [{"text": "", "meta_info": {"completion_tokens": at + 1}} for at in range(len(made))]
        meta = {"prompt_tokens": len(ids), "completion_tokens": len(made)}
        if body.get("return_logprob"):
            k = body["top_logprobs_num"]
            if k > 12:
                return 400, {"message": "top_logprobs_num is too large"}
            meta["input_token_logprobs"] = [
                [float(double.after(ids[:at])[ids[at]]) if at else None, ids[at], None] for at in range(len(ids))
            ]
            meta["input_top_logprobs"] = [
                [[value, token, None] for token, value in double.top(ids[:at], k).items()] if at else None
                for at in range(len(ids))
            ]
        return 200, {"text": "", "output_ids": made, "meta_info": meta}

    double.routes["/generate"] = generate
    return double


def test_it_is_asked_by_ids(backend, sglang):
    found = backend(sglang.url)
    told = found.found
    assert (told["engine"], told["engine_version"], told["max_positions"]) == ("SGLang", "0.5.0", 64)
    assert set(told["capabilities"]) == {"score", "topk-logprobs", "generate", "time"}
    assert (told["topk"], told["topk_path"]) == (12, "prefill")
    [scored] = found.score([IDS], [1])
    rows = [sglang.after(IDS[:at]) for at in range(1, 5)]
    np.testing.assert_allclose(scored.logprobs, [row[t] for row, t in zip(rows, IDS[1:], strict=True)], rtol=1e-6)
    [top] = found.topk_logprobs(IDS, 2, 3)
    assert top.ids.tolist() == [np.argsort(-row)[:3].tolist() for row in rows[1:]]
    assert found.generate([IDS], 5, []) == [sglang.greedy(IDS, 5)]
    assert len(found.time([IDS], 4).gaps_s) == 3


def test_another_tokens_log_probability_is_refused(backend, sglang):
    found = backend(sglang.url)
    honest = sglang.routes["/generate"]

    def shifted(body):
        status, answer = honest(body)
        answer["meta_info"]["input_token_logprobs"][2][1] = 3
        return status, answer

    sglang.routes["/generate"] = shifted
    with pytest.raises(InvalidMeasurement, match=r"input_token_logprobs\[2\] is of another token than 2"):
        list(found.score([IDS], [1]))
