"""Against vLLM's real server, from its own environment, on the demo model: nox -s engines."""

import os
import signal
import socket
import subprocess
import time
import urllib.request

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from awqbench.environments import create_command, interpreter_of
from awqbench.errors import NotApplicable

pytestmark = [pytest.mark.engines, pytest.mark.demo, pytest.mark.timeout(900)]
# float32 in both engines, other summation orders: seen 4.2e-5 at most over 76 positions and 100 tokens each.
NATS = 5e-4


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    """base_url of a vLLM server in float32, with 256 positions and at most 100 log-probabilities."""
    python = interpreter_of("vllm")
    if python is None:
        pytest.skip(f"vLLM's environment is not there; run: {create_command('vllm')}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    # Not `vllm serve`: the CPU build's command looks for a distribution of another name.
    command = [
        str(python), "-P", "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--host", "127.0.0.1",
        "--port", str(port), "--served-model-name", "demo", "--dtype", "float32", "--max-model-len", "256",
        "--max-logprobs", "100", "--enforce-eager",
    ]  # fmt: skip
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, **settings}, start_new_session=True
        )
    try:
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if server.poll() is not None:
                pytest.fail(f"vLLM's server ended: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def ids(folder, prose):
    """The text as the tokenizer beside the weights has it."""
    return AutoTokenizer.from_pretrained(folder).encode(prose)


@pytest.fixture(scope="module")
def reference(folder):
    """The model in transformers, float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def expected(reference, ids):
    """Log-probabilities after each prefix of the text but the whole."""
    with torch.no_grad():
        return reference(torch.tensor([ids])).logits[0, :-1].log_softmax(-1).numpy()


def test_what_it_offers(backend, url, folder, ids, prose):
    found = backend(url, timeout=120)
    told = found.found
    print(told)
    assert (told["engine"], told["topk"], told["topk_path"], told["max_positions"]) == ("vLLM", 100, "prefill", 255)
    assert set(told["capabilities"]) == {"score", "topk-logprobs", "generate", "time", "tokenize"}
    assert (told["generated_ids_by"], told["logprobs_by"]) == ("return_token_ids", "prompt_logprobs")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [prose, "naïve café\n\n1987  ", "日本語", "<|im_start|>user"]
    assert found.tokenize(texts, special=True) == [tokenizer.encode(text) for text in texts]
    with pytest.raises(NotApplicable, match="no decode-logprobs"):
        found.logprobs(ids, 1, "decode")


def test_scores_and_top_tokens_are_the_models(backend, url, ids, expected):
    found = backend(url, timeout=120)
    own = expected[np.arange(len(ids) - 1), ids[1:]]
    whole, end = found.score([ids, ids], [1, 40])
    [top] = found.topk_logprobs(ids, 1, 100)
    its = np.take_along_axis(expected, top.ids.astype(int), 1)
    largest = {"own tokens": np.abs(whole.logprobs - own).max(), "top 100": np.abs(top.logprobs - its).max()}
    print(f"largest differences to transformers float32, nats, {len(own)} positions: {largest}")
    np.testing.assert_allclose(whole.logprobs, own, atol=NATS)
    np.testing.assert_allclose(end.logprobs, own[39:], atol=NATS)
    np.testing.assert_allclose(top.logprobs, its, atol=NATS)
    assert whole.argmax.tolist() == expected.argmax(1).tolist() == top.ids[:, 0].tolist()


def test_the_longest_sequence_is_the_one_it_says(backend, url, ids):
    found = backend(url, timeout=120)
    longest = (ids * 5)[: found.found["max_positions"]]
    [scored] = found.score([longest], [1])
    assert len(scored.logprobs) == len(longest) - 1


def test_greedy_generation_and_timing(backend, url, ids, reference):
    found = backend(url, timeout=120)
    prompts = [ids[:20], ids[20:30], ids[30:60]]
    with torch.no_grad():
        wanted = [
            reference.generate(torch.tensor([p]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
            for p in prompts
        ]
    continuations = [made[0, len(p) :].tolist() for made, p in zip(wanted, prompts, strict=True)]
    assert found.generate(prompts, 12, []) == continuations
    stop = continuations[0][4]
    assert found.generate(prompts[:1], 12, [stop]) == [continuations[0][: continuations[0].index(stop)]]
    timing = found.time([ids[:32], ids[32:64]], 8)
    print(timing)
    assert timing.ttft_s > 0
    assert len(timing.gaps_s) == 7
