"""The native step gives the model's own logits, and is refused where it would not."""

import copy
import re

import numpy as np
import pytest
import torch
from runtime_steps import assert_close, decoded, ids

from awqbench.backends.torch_engine import TorchEngine, weight_bytes
from awqbench.errors import BackendUnavailable, UserError
from awqbench.ops import QuantizedLinear
from awqbench.quantization.rounding import quantize
from awqbench.runtime import TransformersDecoding, attach
from awqbench.runtime.attach import Runtime
from awqbench.runtime.native import NativeDecoding

pytestmark = pytest.mark.usefixtures("native_kernel")
CPU = torch.device("cpu")
FAMILIES = [
    "llama", "llama-tied", "llama3", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "granite", "olmo2", "phi3",
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_the_models_own(family, make_model):
    model = make_model(family)
    plain = copy.deepcopy(model)
    runtime = attach(model, CPU)
    assert runtime.name == "native"
    for batch, prompt, length in [(1, 1, 9), (3, 6, 14)]:
        tokens = ids(batch, length)
        decoding = runtime.begin(batch, length)
        assert isinstance(decoding, NativeDecoding)
        found = decoded(decoding, tokens, prompt)
        assert_close(found, decoded(TransformersDecoding(plain, CPU), tokens, prompt))
        assert_close(found, plain(tokens).logits[:, prompt - 1 :])
        # Prompts and scores go through the model, whose embedding and head are 16-bit now.
        assert_close(model(tokens).logits, plain(tokens).logits)


@pytest.mark.parametrize(("bits", "group"), [(3, 64), (8, 32), (4, 96)])
@torch.no_grad()
def test_other_packings_and_linears_that_are_not_packed(bits, group, make_model):
    model = make_model("llama", bits, group)  # a group that divides no input size leaves linears in float32
    plain = copy.deepcopy(model)
    runtime = attach(model, CPU, "native")
    assert_close(decoded(runtime.begin(2, 12), ids(2, 12), 3), decoded(TransformersDecoding(plain, CPU), ids(2, 12), 3))


@pytest.mark.parametrize(
    ("rows", "group", "name"),
    [
        (104, 32, r"native$"),
        (101, 32, r"transformers: the head has 101 outputs, no multiple of 8"),
        (104, 8, r"transformers: the head runs on the kernel dequantize"),
    ],
)
@torch.no_grad()
def test_a_packed_head_is_decoded_natively_where_the_step_multiplies_by_it(rows, group, name, make_model):
    model = make_model("llama", vocab_size=rows)
    model.set_output_embeddings(QuantizedLinear(quantize(model.lm_head.weight, 4, group)))
    plain = copy.deepcopy(model)
    runtime = attach(model, CPU)
    assert re.match(name, runtime.name), runtime.name
    assert_close(decoded(runtime.begin(2, 9), ids(2, 9), 3), decoded(TransformersDecoding(plain, CPU), ids(2, 9), 3))


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "cohere", "gpt-neox", "longrope"])
@torch.no_grad()
def test_what_does_not_fit_stays_with_transformers(family, make_model, refused):
    model = make_model(family)
    before = model(ids(1, 5)).logits
    runtime = attach(model, CPU)
    assert runtime.name.startswith("transformers: ")
    assert refused(family).search(runtime.name), runtime.name
    assert isinstance(runtime.begin(1, 8), TransformersDecoding)
    assert torch.equal(model(ids(1, 5)).logits, before)
    with pytest.raises(BackendUnavailable, match="cannot be decoded natively"):
        attach(model, CPU, "native")


@pytest.mark.parametrize(("family", "reason"), [
    ("gemma3", "differ in their rotary angles"), ("ministral3", "Ministral3Attention) reads positions itself"),
])  # fmt: skip
def test_angles_and_scales_that_change_with_layer_or_position_are_refused(family, reason, make_model):
    assert attach(make_model(family), CPU).name.endswith(reason)


@torch.no_grad()
def test_a_model_that_computes_something_else_is_refused(make_model):
    class Louder(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs) * 1.001

    model = make_model("llama")
    forward = model.model.layers[1].mlp.forward
    model.model.layers[1].mlp.forward = lambda x: forward(x) * 1.01
    assert "its logits differ" in attach(model, CPU).name
    model = make_model("llama")
    model.model.layers[0].extra = Louder(torch.nn.Linear(2, 2))
    assert "model.layers.0.extra.inner (Linear) is not known to it" in attach(model, CPU).name


@torch.no_grad()
def test_a_context_beyond_the_sliding_window_goes_through_transformers(make_model):
    model = make_model("mistral")
    plain = copy.deepcopy(model)
    runtime = attach(model, CPU)
    assert isinstance(runtime.begin(1, 16), NativeDecoding)
    tokens = ids(1, 24)
    decoding = runtime.begin(1, 24)
    assert isinstance(decoding, TransformersDecoding)
    assert_close(decoded(decoding, tokens, 18), decoded(TransformersDecoding(plain, CPU), tokens, 18))
    assert isinstance(runtime.begin(17, 8), TransformersDecoding)
    assert runtime.otherwise(16, 16) is None
    assert runtime.otherwise(1, 24) == "transformers: 24 positions, and the native step takes 16"
    assert runtime.otherwise(17, 8) == "transformers: 17 sequences, and the native step takes 16"
    assert Runtime(plain, CPU, None, "transformers").otherwise(17, 24) is None  # its name says so


@torch.no_grad()
def test_tied_weights_are_held_once_and_in_sixteen_bits(make_model):
    model = make_model("llama-tied")
    before, table = weight_bytes(model), 101 * 64
    attach(model, CPU)
    assert weight_bytes(model) == before - 2 * table
    exact = make_model("llama-tied")
    exact.model.embed_tokens.weight[7, 3] = 1 / 3  # no 16-bit number
    before = weight_bytes(exact)
    assert attach(exact, CPU).name == "native"
    assert weight_bytes(exact) == before
    brain = make_model("llama-tied")
    brain.model.embed_tokens.weight[:] = 2.0**-30 * torch.randn(101, 64).bfloat16().float()
    assert attach(brain, CPU).name == "native"
    assert model.lm_head.dtype is torch.float16
    assert brain.lm_head.dtype is torch.bfloat16
    assert model.lm_head.bits.data_ptr() == model.model.embed_tokens.bits.data_ptr()


@pytest.mark.parametrize("family", ["llama-tied", "qwen3"])
@torch.no_grad()
def test_an_engine_answers_alike_with_both(family, make_model):
    class Loaded(TorchEngine):
        def __init__(self, asked):
            self.model, self.device, self.batch_size = make_model(family), CPU, 4
            self.runtime = attach(self.model, CPU, asked)

    native, generic = Loaded("auto"), Loaded("transformers")
    assert (native.runtime.name, generic.runtime.name) == ("native", "transformers: asked for")
    prompts = ids(2, 7).tolist()
    assert native.generate(prompts, 9, [5]) == generic.generate(prompts, 9, [5])
    assert len(native.time(prompts, 4).gaps_s) == 3
    sequence = ids(1, 20)[0].tolist()
    rows = [np.concatenate(list(e.logprobs(sequence, 4, "decode"))) for e in (native, generic)]
    np.testing.assert_allclose(*rows, atol=2e-4)
    np.testing.assert_allclose(rows[0], np.concatenate(list(native.logprobs(sequence, 4, "prefill"))), atol=2e-4)


def test_an_unknown_runtime_names_those_there_are(make_model):
    with pytest.raises(UserError, match="auto, cuda-graph, native, static, transformers"):
        attach(make_model("llama"), CPU, "fast")
