"""llama.cpp's real server on the demo model: how near to transformers, and what a position costs (printed)."""

import statistics
import time

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = [pytest.mark.engines, pytest.mark.demo, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def url(serve_gguf, folder, tmp_path_factory):
    """base_url of a server on the demo model in float16."""
    from awqbench.formats.gguf.export import export_gguf

    file = tmp_path_factory.mktemp("demo") / "model.gguf"
    export_gguf(folder, file, kind="f16")
    with serve_gguf(file) as address:
        yield address


def test_it_says_what_transformers_says_and_what_that_costs(backend, url, folder, prose):
    found = backend(url, timeout=120)
    ids = AutoTokenizer.from_pretrained(folder).encode(prose)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1).numpy()
        made = model.generate(torch.tensor([ids[:20]]), max_new_tokens=16, do_sample=False, eos_token_id=None)
    own = expected[np.arange(len(ids) - 1), ids[1:]]
    seconds, rows = {}, {}

    def timed(name, ask, start):
        begun = time.perf_counter()
        rows[name] = list(ask())
        seconds[name] = (time.perf_counter() - begun) / (len(ids) - start)

    timed("own token", lambda: found.score([ids], [1]), 1)
    timed("top 100", lambda: found.topk_logprobs(ids, 1, 100), 1)
    timed("top 1000", lambda: found.topk_logprobs(ids, 1, 1000), 1)
    timed("whole", lambda: found.logprobs(ids, len(ids) - 8, "decode"), len(ids) - 8)
    seconds["gap of a stream"] = statistics.median(found.time([ids[:32]], 16).gaps_s)
    [scored], whole = rows["own token"], np.concatenate(rows["whole"])
    error = np.abs(scored.logprobs - own)
    tail = expected[-8:].astype(np.float64)
    divergence = (np.exp(tail) * (tail - whole)).sum(1)
    print({"positions": len(own), "mean": error.mean(), "largest": error.max(), "KL of 8": divergence.mean()})
    print({name: f"{value * 1e3:.1f} ms" for name, value in seconds.items()})
    assert error.max() < 0.1
    assert np.mean(scored.argmax == expected.argmax(1)) > 0.97
    assert -1e-6 < divergence.mean() < 1e-3
    assert found.generate([ids[:20]], 16, []) == [made[0, 20:].tolist()]
