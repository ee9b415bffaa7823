"""The fused step gives the model's own logits by few launches, and is refused where it would not."""

import copy
import io

import pytest
import torch
from runtime_steps import assert_close, decoded, ids
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from awqbench.backends.torch_engine import TorchEngine
from awqbench.ops import QuantizedLinear
from awqbench.runtime import TransformersDecoding, attach
from awqbench.runtime.attach import static_runtime
from awqbench.runtime.fused import FusedStep, wanted
from awqbench.runtime.norms import unfuse_norms
from awqbench.runtime.static import Slot

CPU = torch.device("cpu")
FAMILIES = [
    "llama", "llama-tied", "llama3", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "granite", "olmo2",
    "phi3",
]  # fmt: skip
HALF = 4e-3  # of the largest logit; the model's own prefill and decode differ by half of that
# Constants that show in the logits of such small models.
SHARP = {
    "gemma2": {"query_pre_attn_scalar": 4, "attn_logit_softcapping": 1.0},
    "qwen3": {"rms_norm_eps": 0.1},
}
# Every linear's outputs fill whole row tiles, as those of real models do.
WHOLE = {"num_key_value_heads": 4, "intermediate_size": 128}


@pytest.fixture
def make(make_model):
    """make(family, **changes): packed for the CUDA kernels, in 16 bits."""

    def make(family, dtype=torch.float16, **changes):
        return make_model(family, kernel="cuda", dtype=dtype, **changes)

    return make


def agree(runtime, plain, batch, prompt, length, tolerance=HALF):
    tokens = ids(batch, length, seed=prompt)
    own = decoded(TransformersDecoding(plain, CPU), tokens, prompt)
    assert_close(decoded(runtime.begin(batch, length), tokens, prompt), own, tolerance)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_replays_are_the_models_own_logits(family, make, recorder):
    """From nothing, behind prompts, and beyond the sliding window of mistral (16) and gemma3 (8)."""
    model = make(family, **SHARP.get(family, {}))
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU, recorder)
    assert runtime.name == "cuda-graph, fused"
    for prompt, length in [(1, 6), (3, 24), (20, 26)]:
        before = recorder.replays
        agree(runtime, plain, 2, prompt, length)
        assert recorder.replays - before == length - prompt + (prompt == 1)
    assert recorder.captures == 1


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@torch.no_grad()
def test_bfloat16(family, make):
    model = make(family, torch.bfloat16)
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU)
    assert runtime.name == "static, fused"
    agree(runtime, plain, 2, 5, 12, 8 * HALF)


class Launches(TorchDispatchMode):
    """Counts operations that are no views, and those that touch a tensor on the host."""

    def __init__(self):
        super().__init__()
        self.found, self.on_host = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        aliases = [returned.alias_info for returned in func._schema.returns]
        if all(alias is None or alias.is_write for alias in aliases):
            self.found.append(func._schema.name.partition("::")[2])
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        self.on_host += [str(func) for tensor in tensors if tensor.device.type == "cpu"]
        return out


PLAIN = ["w4a16_fused", "attend", "w4a16_fused", "w4a16_fused", "w4a16_fused"]
AFTER = ["clone", "add"]  # a norm behind a branch
# What a layer launches; clone stands for a norm of torch's.
LAYERS = {
    "llama": PLAIN,
    "qwen2": PLAIN,
    "qwen3": PLAIN,
    "phi3": PLAIN,
    "mistral": PLAIN,
    "granite": [*PLAIN[:3], "add", *PLAIN[3:], "add"],
    "olmo2": [PLAIN[0], "clone", "clone", "cat", *PLAIN[1:3], *AFTER, *PLAIN[3:], *AFTER],
    "gemma2": [*PLAIN[:3], "_to_copy", "clone", "_to_copy", "add", *PLAIN[3:], "_to_copy", "clone", "_to_copy", "add"],
}


@pytest.mark.parametrize("family", LAYERS)
@torch.no_grad()
def test_a_layer_is_so_many_launches(family, make, monkeypatch):
    """On the meta device, which stands for the GPU: it has no values, so reading one is an error."""
    model = make(family, **WHOLE, **({"head_dim": 16} if family == "qwen3" else {}))
    step = static_runtime(model, CPU).static.fused
    unfuse_norms(model)  # no part of the step, and not to be pickled
    moved = io.BytesIO()
    torch.save((model, step), moved)
    moved.seek(0)
    model, step = torch.load(moved, map_location="meta", weights_only=False)
    slot = Slot(model, torch.device("meta"), 2, 128, padded=True, fused=step)
    monkeypatch.setattr(functional, "rms_norm", lambda x, *_: x.clone())
    with Launches() as launches:
        slot.advance()
    ends = launches.found[:1], launches.found[-1:]
    assert ends == (["embedding"], ["add_"])
    assert launches.found.count("mm") == 1  # the head
    begin = 1 + (family in ("gemma2", "granite"))  # their embedding is scaled
    each = LAYERS[family]
    assert launches.found[begin : begin + 2 * len(each)] == 2 * each
    assert len(launches.found) - begin - 2 * len(each) <= 3 + 5 * (family in ("gemma2", "granite"))  # norm, head, place
    assert launches.on_host == []


@pytest.mark.parametrize("family", ["llama", "gemma3", "granite"])
@torch.no_grad()
def test_a_captured_step_hides_the_padding_of_each_batch(family, make, recorder):
    """Where layers have windows too, which the model's own step can't."""
    model = make(family)
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU, recorder)
    for lengths in ((10, 2), (3, 10)):  # the second batch by the first one's capture
        tokens, padding = ids(2, 24, seed=lengths[1]), torch.tensor([10 - length for length in lengths])
        decoding = runtime.begin(2, 24, True)
        found = [decoding.feed(tokens[:, :10], padding).clone()]
        found += [decoding.feed(tokens[:, at : at + 1]).clone() for at in range(10, 24)]
        for row, length in enumerate(lengths):
            alone = decoded(TransformersDecoding(plain, CPU), tokens[row : row + 1, 10 - length :], length)
            assert_close(torch.stack(found, 1)[row : row + 1], alone, HALF)
    assert recorder.captures == 2  # of the proof, and with padding
    assert runtime.sharing == "any"


@torch.no_grad()
def test_a_slot_is_used_again_until_it_is_full(make, recorder):
    model = make("mistral")
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU, recorder)
    decoded(runtime.begin(2, 40), ids(2, 40, seed=3), 20)  # leaves keys and values of its own
    agree(runtime, plain, 2, 4, 9)
    tokens, decoding = ids(2, 128), runtime.begin(2, 128)
    own = TransformersDecoding(plain, CPU)
    assert_close(decoded(decoding, tokens, 121), decoded(own, tokens, 121), HALF)
    with pytest.raises(IndexError, match="after 128"):
        decoding.feed(tokens[:, :1])
    assert recorder.captures == 1


@torch.no_grad()
def test_the_same_tokens_are_chosen(make):
    class Loaded(TorchEngine):
        def __init__(self, asked):
            self.model, self.device, self.batch_size = make("qwen3"), CPU, 4
            self.runtime = attach(self.model, CPU, asked)

    fused, generic = Loaded("static"), Loaded("transformers")
    assert fused.runtime.name == "static, fused"
    prompts = [row[: 4 + n].tolist() for n, row in enumerate(ids(3, 7))]  # in one batch, with padding
    assert fused.generate(prompts, 16, [5]) == generic.generate(prompts, 16, [5])


@torch.no_grad()
def test_what_is_not_packed_is_multiplied_by_torch(make, make_model, recorder, monkeypatch):
    """One of q, k and v, an output, a whole mlp, a down projection; and codes of 8 bits, which no CUDA kernel takes."""
    model, dense = make("qwen2", **WHOLE), make("qwen2", **WHOLE)
    wide = make_model("qwen2", 8, kernel="dequantize", dtype=torch.float16, **WHOLE)
    torch.manual_seed(1)

    def widened(linear):
        new = torch.nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, dtype=torch.float16)
        new.weight.copy_(linear.to_quantized().dequantize().half())
        if linear.bias is not None:
            new.bias.copy_(linear.bias)
        return new.requires_grad_(False)

    first, second = model.model.layers
    first.self_attn.k_proj = widened(dense.model.layers[0].self_attn.k_proj)
    second.self_attn.o_proj = widened(dense.model.layers[1].self_attn.o_proj)
    second.mlp.gate_proj, second.mlp.up_proj = (widened(getattr(second.mlp, f"{key}_proj")) for key in ("gate", "up"))
    first.mlp.down_proj = widened(first.mlp.down_proj)
    second.mlp.down_proj = wide.model.layers[1].mlp.down_proj
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU, recorder)
    assert runtime.name == "cuda-graph, fused"
    agree(runtime, plain, 2, 5, 14)
    monkeypatch.setattr(functional, "rms_norm", lambda x, *_: x.clone())
    slot = runtime.begin(1, 8)._slot
    with Launches() as launches:
        slot.advance()
    layers = "|".join(launches.found[1:-3])
    # q and v stay apart, since k is dense; addmm has a bias, mm has none.
    assert layers.startswith("clone|w4a16_fused|addmm|w4a16_fused|cat|attend|w4a16_fused|w4a16_fused|silu|mul|mm|add|")
    assert "|attend|mm|add|clone|mm|mm|cat|silu|mul|" in layers


@torch.no_grad()
def test_linears_that_are_not_merged_are_put_side_by_side(make):
    """Of other groups than their neighbours, which share no weight."""
    model, other = make("llama", **WHOLE), make("llama", group=64, **WHOLE)
    model.model.layers[0].self_attn.q_proj = other.model.layers[0].self_attn.q_proj
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU)
    assert runtime.name == "static, fused"
    agree(runtime, plain, 1, 4, 9)
    slot = runtime.begin(1, 8)._slot
    with Launches() as launches:
        slot.advance()
    assert launches.found[1:6] == ["w4a16_fused"] * 3 + ["cat", "attend"]


@pytest.mark.parametrize(("family", "reason"), [
    ("mixtral", "layer 0's mlp"), ("cohere", "no RMS norm"), ("longrope", "depend on the length"),
    ("ministral3", "reads positions itself"),
])  # fmt: skip
@torch.no_grad()
def test_other_architectures_keep_the_models_step(family, reason, make, recorder):
    runtime = static_runtime(make(family), CPU, recorder)
    assert runtime.name.startswith("cuda-graph: not fused: ")
    assert reason in runtime.name
    assert runtime.static.fused is None


@torch.no_grad()
def test_dense_models_and_others_in_float32_are_not_meant(make, make_model):
    assert not wanted(make_model("llama", kernel="cuda"))
    assert not wanted(make_model("llama", kernel="dequantize", dtype=torch.float16))
    assert wanted(make("llama"))
    assert static_runtime(make_model("llama", kernel="cuda"), CPU).name == "static"


@torch.no_grad()
def test_what_the_description_misses_shows_in_the_proof(make):
    swapped = make("phi3")
    mlp = swapped.model.layers[1].mlp

    def up_first(x):
        up, gate = mlp.gate_up_proj(x).chunk(2, dim=-1)
        return mlp.down_proj(up * mlp.activation_fn(gate))

    mlp.forward = up_first
    assert "not fused: its logits differ" in static_runtime(swapped, CPU).name
    louder = make("llama")
    attention, forward = louder.model.layers[0].self_attn, louder.model.layers[0].self_attn.forward
    attention.forward = lambda *args, **kwargs: (2 * forward(*args, **kwargs)[0], None)
    assert "not fused: its logits differ" in static_runtime(louder, CPU).name


@torch.no_grad()
def test_a_fused_step_that_cannot_be_captured_gives_way_to_one_that_can(make, recorder, monkeypatch):
    real = FusedStep.__call__

    def waiting(self, *args):
        logits = real(self, *args)
        return logits if float(logits[0, 0]) < 1e9 else -logits

    monkeypatch.setattr(FusedStep, "__call__", waiting)
    runtime = static_runtime(make("llama"), CPU, recorder)
    assert runtime.name == ("cuda-graph: not fused: no CUDA graph: operation not permitted when stream is capturing")
    assert recorder.captures == 1


@torch.no_grad()
def test_the_models_step_can_be_asked_for_beside_it(make, recorder):
    model = make("llama")
    plain = copy.deepcopy(model)
    fused = static_runtime(model, CPU, recorder)
    packed = [m.get_buffer("tiles").data_ptr() for m in model.modules() if isinstance(m, QuantizedLinear)]
    unfused = static_runtime(model, CPU, recorder, fused=False)
    assert unfused.name == "cuda-graph: not fused: not asked for"
    # Neither takes memory of its own for the weights.
    assert packed == [m.get_buffer("tiles").data_ptr() for m in model.modules() if isinstance(m, QuantizedLinear)]
    for runtime in (fused, unfused, static_runtime(model, CPU)):
        agree(runtime, plain, 2, 3, 9)
    assert fused.name == "cuda-graph, fused"


@torch.no_grad()
def test_sizes_beyond_it_are_decoded_otherwise(make):
    model = make("mistral")
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU)
    assert runtime.largest_batch == 64
    assert runtime.otherwise(64, 128) is None
    assert runtime.otherwise(65, 128) == "the model's own step: 65 sequences, and the fused step takes 64"
    wide = "the model's own step: a cache of 256 positions, and the fused step takes 128"
    assert runtime.otherwise(1, 129) == wide  # made for 128 positions
    agree(runtime, plain, 65, 3, 5)
    assert isinstance(runtime.begin(65, 5, padded=True), TransformersDecoding)  # its own step takes no padding


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "phi3"])
@torch.no_grad()
def test_a_graph_on_the_device(family, make):
    device = torch.device("cuda")
    model = make(family).to(device)
    plain = copy.deepcopy(model)
    runtime = attach(model, device, "cuda-graph")
    assert runtime.name == "cuda-graph, fused"
    for seed in range(2):
        tokens = ids(2, 40, seed)
        own = decoded(TransformersDecoding(plain, device), tokens, 5)
        assert_close(decoded(runtime.begin(2, 40), tokens, 5), own, 1e-2)
