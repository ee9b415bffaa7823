"""A static cache gives the model's own logits, is used again, and is refused where it would not fit."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from runtime_steps import assert_close, decoded, ids

from awqbench.backends.torch_engine import TorchEngine
from awqbench.errors import BackendUnavailable
from awqbench.ops import QuantizedLinear
from awqbench.runtime import TransformersDecoding, attach, static
from awqbench.runtime.attach import static_runtime
from awqbench.runtime.probe import NotDescribed
from awqbench.runtime.static import StaticDecoding, StaticModel, capacity
from awqbench.runtime.static_cache import static_cache

CPU = torch.device("cpu")
FAMILIES = [
    "llama", "llama-tied", "llama3", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "granite", "olmo2",
    "phi3", "mixtral", "cohere", "gpt-neox", "gpt2", "longrope",
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_the_models_own(family, make_model):
    """Beyond the sliding window of mistral (16) and gemma3 (8) too."""
    model = make_model(family, kernel="cuda")
    plain = copy.deepcopy(model)
    runtime = attach(model, CPU, "static")
    assert runtime.name == "static"
    assert any(isinstance(m, QuantizedLinear) and m.shared for m in model.modules()) == (
        family not in ("phi3", "longrope", "gpt-neox", "gpt2")
    )
    for batch, prompt, length in [(1, 1, 9), (2, 20, 26)]:
        tokens = ids(batch, length)
        decoding = runtime.begin(batch, length)
        assert isinstance(decoding, StaticDecoding)
        assert_close(decoded(decoding, tokens, prompt), decoded(TransformersDecoding(plain, CPU), tokens, prompt))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_sixteen_bits(dtype, make_model):
    model = make_model("llama", kernel="cuda", dtype=dtype)
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU, fused=False)
    assert runtime.name == "static: not fused: not asked for"
    tokens = ids(2, 12)
    own = decoded(TransformersDecoding(plain, CPU), tokens, 5)
    assert_close(decoded(runtime.begin(2, 12), tokens, 5), own, 4 * torch.finfo(dtype).eps)


@torch.no_grad()
def test_a_cache_is_used_again_and_forgets(make_model):
    model = make_model("mistral", kernel="cuda")
    made = StaticModel(model, CPU)
    first = made.begin(2, 30)
    decoded(first, ids(2, 30, seed=1), 20)
    second = made.begin(2, 9)  # the same capacity
    assert second._slot is first._slot
    with pytest.raises(RuntimeError, match="have ended"):
        first.feed(ids(2, 1))
    assert_close(decoded(second, ids(2, 9), 4), decoded(TransformersDecoding(model, CPU), ids(2, 9), 4))
    assert made.begin(2, 129)._slot is not first._slot
    assert made.begin(1, 9)._slot is not first._slot


@torch.no_grad()
def test_a_prompt_in_several_parts(make_model):
    model = make_model("gemma3", kernel="cuda")
    tokens = ids(1, 24)
    whole = decoded(TransformersDecoding(model, CPU), tokens, 3, 4, 15, 19)
    assert_close(decoded(StaticModel(model, CPU).begin(1, 24), tokens, 3, 4, 15, 19), whole)


@torch.no_grad()
def test_old_caches_go_when_there_are_many_or_large_ones(make_model, monkeypatch):
    made = StaticModel(make_model("llama", kernel="cuda"), CPU)
    monkeypatch.setattr(static, "KEPT", 2)
    kept = [made.begin(batch, 8)._slot for batch in (1, 2, 3)]
    assert list(made._slots.values()) == kept[1:]
    made.begin(2, 8)  # was there, and is the latest now
    made.begin(4, 8)
    assert list(made._slots) == [(2, 128, False), (4, 128, False)]
    monkeypatch.setattr(static, "KEPT_BYTES", kept[0].bytes)
    made.begin(1, 8)
    made.begin(5, 8)
    assert list(made._slots) == [(1, 128, False), (5, 128, False)]
    assert kept[0].bytes == 2 * 2 * 2 * 128 * 16 * 4  # layers, keys and values, heads, tokens, head size, float32


@torch.no_grad()
def test_out_of_memory_drops_what_is_kept(make_model, monkeypatch):
    made = StaticModel(make_model("llama", kernel="cuda"), CPU)
    made.begin(1, 8)
    real, failures = static.Slot, []

    def scarce(*args):
        if len(made._slots) > 0:
            failures.append(args)
            raise torch.OutOfMemoryError("not enough")
        return real(*args)

    monkeypatch.setattr(static, "Slot", scarce)
    made.begin(2, 8)
    assert list(made._slots) == [(2, 128, False)]
    assert len(failures) == 1


@torch.no_grad()
def test_a_full_cache_and_a_wrong_batch_are_refused(make_model):
    decoding = StaticModel(make_model("llama", kernel="cuda"), CPU).begin(1, 8)
    with pytest.raises(IndexError, match="allowed: 1 sequences of up to 128"):
        decoding.feed(ids(2, 3))
    decoding.feed(ids(1, 127))
    decoding.feed(ids(1, 1))
    with pytest.raises(IndexError, match="after 128"):
        decoding.feed(ids(1, 1))
    assert [capacity(n) for n in (0, 1, 128, 129)] == [128, 128, 128, 256]


@torch.no_grad()
def test_state_of_another_kind_is_refused(make_model):
    import transformers

    sizes = {"vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    mamba = transformers.AutoModelForCausalLM.from_config(transformers.MambaConfig(**sizes)).eval()
    with pytest.raises(BackendUnavailable, match="cannot be decoded with a static cache"):
        attach(mamba, CPU, "static")
    types = ["linear_attention", "full_attention"]
    with pytest.raises(NotDescribed, match="layer 0 keeps more than keys and values"):
        static_cache(make_model("llama", kernel="cuda", layer_types=types).config, 8, torch.zeros(1))


@torch.no_grad()
def test_a_model_that_does_not_bear_merged_linears_keeps_them_apart(make_model, monkeypatch):
    model = make_model("llama", kernel="cuda")
    attention = model.model.layers[0].self_attn
    forward = attention.q_proj.forward
    monkeypatch.setattr(attention.q_proj, "forward", lambda x: forward(x).view(-1).view(*x.shape[:-1], -1))
    assert attach(model, CPU, "static").name == "static"
    assert attention.k_proj.shared is None


@torch.no_grad()
def test_a_model_that_computes_something_else_is_refused(make_model):
    model = make_model("llama", kernel="cuda")
    forward = model.model.layers[1].mlp.forward
    model.model.layers[1].mlp.forward = lambda x: forward(x) * (1.01 if x.shape[1] == 1 and cached[0] else 1.0)
    cached = [False]
    real = static.Slot.prefill

    def seen(*args):
        cached[0] = True
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static.Slot, "prefill", seen)
        with pytest.raises(BackendUnavailable, match="its logits differ"):
            attach(model, CPU, "static")
    assert not any(isinstance(m, QuantizedLinear) and m.shared for m in model.modules())


@torch.no_grad()
def test_a_model_without_state_and_one_that_runs_out_of_memory_are_refused(make_model, monkeypatch):
    model = make_model("llama", kernel="cuda")
    forward = model.forward

    def stateless(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.past_key_values = None
        return output

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", stateless)
        with pytest.raises(BackendUnavailable, match="ValueError: CausalLMOutputWithPast carries no state"):
            attach(model, CPU, "static")
    monkeypatch.setattr(static, "Slot", Scarce)
    with pytest.raises(BackendUnavailable, match="OutOfMemoryError: not enough"):
        attach(model, CPU, "static")


class Scarce:
    def __init__(self, *args):
        raise torch.OutOfMemoryError("not enough")


@torch.no_grad()
def test_a_cuda_graph_needs_its_device(make_model):
    with pytest.raises(BackendUnavailable, match="cannot be decoded by a CUDA graph: the device is cpu"):
        attach(make_model("llama", kernel="cuda"), CPU, "cuda-graph")


@torch.no_grad()
def test_an_engine_answers_alike_with_both(make_model):
    class Loaded(TorchEngine):
        def __init__(self, asked):
            self.model, self.device, self.batch_size = make_model("qwen3", kernel="cuda"), CPU, 4
            self.runtime = attach(self.model, CPU, asked)

    fixed, generic = Loaded("static"), Loaded("transformers")
    prompts = ids(2, 7).tolist()
    assert fixed.generate(prompts, 9, [5]) == generic.generate(prompts, 9, [5])
    assert len(fixed.time(prompts, 4).gaps_s) == 3
    sequence = ids(1, 20)[0].tolist()
    rows = [np.concatenate(list(e.logprobs(sequence, 4, "decode"))) for e in (fixed, generic)]
    np.testing.assert_allclose(*rows, atol=2e-4)
    np.testing.assert_allclose(rows[0], np.concatenate(list(fixed.logprobs(sequence, 4, "prefill"))), atol=2e-4)


@torch.no_grad()
def test_a_cache_goes_with_its_last_use(make_model, recorder):
    made = StaticModel(make_model("llama", kernel="cuda"), CPU, recorder)
    gone = weakref.ref(made.begin(1, 8)._slot)
    gc.disable()  # without the help of the collector, which might come too late
    try:
        made._slots.clear()
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("family", ["llama", "gpt2", "granite", "mixtral"])
@torch.no_grad()
def test_a_captured_step_hides_the_padding_of_each_batch(family, make_model, recorder):
    model = make_model(family, kernel="cuda")
    made = StaticModel(model, CPU, recorder)
    for lengths in ((6, 2), (3, 6)):  # the second batch by the first one's capture
        tokens, padding = ids(2, 12, seed=lengths[1]), torch.tensor([6 - length for length in lengths])
        decoding = made.begin(2, 12, True)
        found = [decoding.feed(tokens[:, :6], padding).clone()]
        found += [decoding.feed(tokens[:, at : at + 1]).clone() for at in range(6, 12)]
        for row, length in enumerate(lengths):
            alone = decoded(TransformersDecoding(model, CPU), tokens[row : row + 1, 6 - length :], length)
            assert_close(torch.stack(found, 1)[row : row + 1], alone)
    assert (recorder.captures, recorder.replays) == (1, 12)


@torch.no_grad()
def test_a_step_without_our_mask_takes_no_padding(make_model):
    with pytest.raises(NotDescribed, match="no mask"):
        StaticModel(make_model("mistral", kernel="cuda"), CPU).begin(2, 12, True)
