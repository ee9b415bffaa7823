"""Scores behind shared prefixes are the model's own, whatever the model: shared where that is so, refused elsewhere."""

import importlib.util
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.backends.torch_engine import TorchEngine
from awqbench.ops import QuantizedLinear
from awqbench.runtime import attach, grouping
from awqbench.runtime.describe import full_sight
from awqbench.runtime.shared_prefix import SharedPrefix

_spec = importlib.util.spec_from_file_location(
    "architectures", Path(__file__).parents[1] / "quantization" / "conftest.py"
)
architectures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(architectures)

CPU = torch.device("cpu")
STATE_SPACE = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}
MORE = {
    "mamba2": ("Mamba2Config", {**STATE_SPACE, "num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1}),
    "rwkv": ("RwkvConfig", {**STATE_SPACE, "context_length": 64}),
}
# Tokens up to which each shares; the others up to as many as they have positions.
LIMITS = {
    **dict.fromkeys(("mistral", "gemma2", "gemma3", "gemma3-vision", "cohere2"), 16),
    **dict.fromkeys(("bloom", "mpt"), 2048),
    **dict.fromkeys(("mamba", "mamba2", "rwkv"), 0),
    "gpt-oss": 128,
}


class Loaded(TorchEngine):
    """The engine around a model that is there already."""

    def __init__(self, model, batch_size=4, share=True):
        self.model, self.device, self.batch_size = model, CPU, batch_size
        if not share:
            self._prefixes.__dict__["limit"] = 0


def questions(*shapes, seed=0):
    """Sequences and starts: per shape a context's length and its choices' lengths, ids from 3 to 100."""
    generator = np.random.default_rng(seed)
    sequences, starts = [], []
    for context, *choices in shapes:
        common = generator.integers(3, 101, context).tolist()
        for length in choices:
            sequences.append(common + generator.integers(3, 101, length).tolist())
            starts.append(context)
    return sequences, starts


QUESTIONS = questions((12, 3, 1, 2, 3), (40, 1, 6, 2), (11, 2, 2, 4), (38, 3, 3, 3, 9), (13, 1, 1, 1))


@pytest.fixture
def cheap(monkeypatch):
    """Even tiny questions are worth sharing."""
    monkeypatch.setitem(grouping.PASS, "cpu", 1.0)


@torch.no_grad()
def scores_agree(model, sequences, starts, batch_size=4, tolerance=2e-5):
    """Shared scores are those of each sequence alone; how many tokens may be shared."""
    shared = Loaded(model, batch_size)
    alone = Loaded(model, 1, share=False)
    for found, wanted in zip(shared.score(sequences, starts), alone.score(sequences, starts), strict=True):
        np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=tolerance)
        np.testing.assert_array_equal(found.argmax, wanted.argmax)
    return shared._prefixes.limit


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("name", [*architectures.ARCHITECTURES, *MORE])
def test_every_architecture_scores_as_if_nothing_were_shared(name, build_any):
    """With questions on either side of a sliding window of 16."""
    assert scores_agree(build_any(name), *QUESTIONS) == LIMITS.get(name, 1024)


@pytest.fixture
def build_any(monkeypatch):
    def make(name):
        monkeypatch.setattr(architectures, "ARCHITECTURES", {**architectures.ARCHITECTURES, **MORE})
        return architectures.build.__wrapped__()(name)

    return make


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("family", ["llama-tied", "llama3", "gemma", "phi3"])
def test_packed_weights(family, make_model):
    model = make_model(family)
    assert any(isinstance(module, QuantizedLinear) for module in model.modules())
    assert scores_agree(model, *QUESTIONS) == (32 if family == "llama3" else 128)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("shapes", [((12, 3, 1, 2), (11, 4, 2)), ((14, 5, 6), (15, 4, 3), (40, 3, 3))])
def test_angles_that_depend_on_the_length(shapes, make_model):
    """longrope changes its angles behind 16 tokens: what is shared ends there. (transformers itself gives the inputs
    of a batch the angles of its longest, so those on either side are asked apart here.)"""
    assert scores_agree(make_model("longrope"), *questions(*shapes)) == 16


@pytest.mark.usefixtures("cheap", "native_kernel")
@torch.no_grad()
def test_a_model_that_is_decoded_natively(make_model):
    model = make_model("llama-tied")
    assert attach(model, CPU).name == "native"
    assert scores_agree(model, *QUESTIONS) == 128


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_sixteen_bits(dtype, make_model):
    model = make_model("llama", kernel="cuda", dtype=dtype)
    engines = Loaded(model), Loaded(model, share=False)
    for found, wanted in zip(*(engine.score(*QUESTIONS) for engine in engines), strict=True):
        np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=64 * torch.finfo(dtype).eps)
    assert engines[0]._prefixes.limit == 128


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=101, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


few = st.lists(st.integers(0, 1), min_size=1, max_size=20)
requests = st.lists(few.flatmap(lambda ids: st.tuples(st.just(ids), st.integers(1, len(ids)))), max_size=16)


@settings(deadline=None, max_examples=60)
@given(requests, st.integers(1, 5))
def test_any_request_scores_as_if_nothing_were_shared(llama, request, batch_size):
    """Duplicates, sequences that begin others, start 1, nothing to score: in the caller's order."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("REPEAT", "WORTH"):
            patch.setattr(grouping, name, 0.0)
        patch.setitem(grouping.PASS, "cpu", 0.0)
        patch.setattr(grouping, "LEAST", 1)
        sequences, starts = [list(ids) for ids, _ in request], [start for _, start in request]
        assert scores_agree(llama, sequences, starts, batch_size) in (0, 64)
        lengths = [len(scored.logprobs) for scored in Loaded(llama).score(sequences, starts)]
        assert lengths == [len(ids) - start for ids, start in request]


@torch.no_grad()
def test_positions_of_the_forward_passes(llama):
    """Two questions of 40 tokens with three answers of 4: 2 x 39 and 6 x 4 positions in place of 6 x 43."""
    seen = []
    llama_hook = llama.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["input_ids"].shape), with_kwargs=True
    )
    try:
        engine = Loaded(llama, 32)
        assert engine._prefixes.limit == 64
        seen.clear()
        list(engine.score(*questions((40, 4, 4, 4), (40, 4, 4, 4))))
        assert seen == [(2, 39), (6, 4)]
        seen.clear()
        list(engine.score([[1, 2, 3], [1]], [3, 1]))
        assert seen == [], "nothing to score is nothing to compute"
        list(Loaded(llama, 32, share=False).score(*questions((40, 4, 4, 4), (40, 4, 4, 4))))
        assert seen == [(6, 43)]
    finally:
        llama_hook.remove()


@torch.no_grad()
def test_results_leave_in_order_as_soon_as_they_are_there(llama):
    """The first question is scored before the second, shorter one is begun."""
    sequences, starts = questions((50, 2, 2), (20, 2, 2))
    engine, passes = Loaded(llama, 1), []
    assert engine._prefixes.limit
    handle = llama.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        results = engine.score(sequences, starts)
        next(results)
        next(results)
        assert len(passes) == 3, "a prefix and two answers"
        assert len(list(results)) == 2
    finally:
        handle.remove()


def forgetful(own):
    """A forward pass that takes no notice of what the cache holds."""

    def forward(*args, past_key_values=None, **named):
        if past_key_values is not None:
            named["attention_mask"] = None
        return own(*args, **named)

    return forward


def late(own):
    """A forward pass that counts a prompt's continuation from one position too far on."""

    def forward(*args, past_key_values=None, **named):
        if past_key_values is not None:
            start = past_key_values.get_seq_length() + 1
            named["position_ids"] = torch.arange(start, start + named["input_ids"].shape[1])[None]
        return own(*args, past_key_values=past_key_values, **named)

    return forward


def refusing(own):
    """A forward pass without a cache."""

    def forward(*args, past_key_values=None, **named):
        if past_key_values is not None:
            raise TypeError("forward() got an unexpected keyword argument 'past_key_values'")
        return own(*args, **named)

    return forward


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        (forgetful, "logits differ from the model's own by"),
        (late, "logits differ from the model's own by"),
        (refusing, "it raises TypeError: forward"),
    ],
)
@torch.no_grad()
def test_a_model_that_does_not_bear_it_scores_whole_sequences(llama, spoiled, reason, monkeypatch, caplog):
    monkeypatch.setitem(grouping.PASS, "cpu", 1.0)
    monkeypatch.setattr(llama, "forward", spoiled(llama.forward))
    with caplog.at_level(logging.INFO):
        assert scores_agree(llama, *QUESTIONS) == 0
    (message,) = [record.getMessage() for record in caplog.records if "first token" in record.getMessage()]
    assert reason in message


@torch.no_grad()
def test_a_kept_prefix_serves_any_rows_and_stays_as_it_was(llama):
    shared = SharedPrefix(llama, CPU)
    prefixes = [tuple(range(3, 12)), tuple(range(20, 29))]
    cache = shared.keep(prefixes)
    first = shared.follow(cache, 9, [1, 1, 0], [(4, 5), (6,), (7, 8)])
    again = shared.follow(cache, 9, [0, 1], [(7, 8), (6, 9)])
    torch.testing.assert_close(again[0], first[2])
    torch.testing.assert_close(again[1, 0], first[1, 0])
    torch.testing.assert_close(first[0], llama(torch.tensor([[*prefixes[1], 4, 5]])).logits[0, 9:])
    assert cache.get_seq_length() == 9


def test_numbers_that_count_layers_are_no_windows():
    """Qwen2's max_window_layers (28) and Gemma 3's _sliding_window_pattern (6) once ended native decoding there."""
    qwen = transformers.Qwen2Config(max_position_embeddings=4096)
    gemma = transformers.Gemma3TextConfig(max_position_embeddings=4096, sliding_window=512)
    assert full_sight(qwen) == 4096
    assert full_sight(gemma) == 512
    assert full_sight(transformers.GPTNeoConfig()) == 256
