"""The captured step, with a recorder of tensor operations in the place of CUDA's graph: it replays no Python either."""

import copy
import weakref

import pytest
import torch
from runtime_steps import assert_close, decoded, ids
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from awqbench.runtime import TransformersDecoding
from awqbench.runtime.attach import static_runtime
from awqbench.runtime.merged import merge_linears
from awqbench.runtime.norms import fuse_norms
from awqbench.runtime.static import Slot, StaticModel

CPU = torch.device("cpu")
FAMILIES = ["llama", "llama3", "mistral", "qwen3", "gemma2", "gemma3", "phi3", "mixtral", "cohere", "gpt-neox", "gpt2"]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_replays_are_the_models_own_logits(family, make_model, recorder):
    """New ids, later positions, longer prompts, sequences after one another, and beyond a sliding window."""
    model = make_model(family, kernel="cuda")
    plain = copy.deepcopy(model)
    runtime = static_runtime(model, CPU, recorder)
    assert runtime.name == "cuda-graph"
    assert recorder.captures == 1  # of the sequences that prove it
    for seed, (prompt, length) in enumerate([(1, 6), (3, 24), (20, 26)]):
        tokens = ids(2, length, seed)
        before = recorder.replays
        assert_close(
            decoded(runtime.begin(2, length), tokens, prompt), decoded(TransformersDecoding(plain, CPU), tokens, prompt)
        )
        assert recorder.replays - before == length - prompt + (prompt == 1)
    assert recorder.captures == 1


class Elsewhere(TorchDispatchMode):
    """Collects operations that touch a tensor on the host, which a step in a graph can't."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        self.found += [str(func) for tensor in tensors if tensor.device.type == "cpu"]
        return out


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mixtral"])
@torch.no_grad()
def test_a_step_on_a_device_touches_nothing_on_the_host(family, make_model):
    """The meta device stands for the GPU; it has no values, so reading one is an error."""
    model = make_model(family, kernel="cuda", dtype=torch.float16)
    merge_linears(model)
    fuse_norms(model)
    slot = Slot(model.to("meta"), torch.device("meta"), 2, 128)
    with Elsewhere() as elsewhere:
        logits = slot.advance()
    assert (logits.shape, logits.device.type, elsewhere.found) == ((2, 101), "meta", [])


@torch.no_grad()
def test_one_capture_for_each_batch_and_capacity(make_model, recorder):
    made = StaticModel(make_model("llama", kernel="cuda"), CPU, recorder)
    sizes = [(1, 20), (2, 20), (1, 200), (1, 128), (2, 9)]
    decodings = [made.begin(*size) for size in sizes]
    assert recorder.captures == 3
    assert decodings[0]._slot is decodings[3]._slot
    # Those of different sizes don't disturb each other, fed by turns.
    pair = made.begin(1, 20), made.begin(2, 20)
    tokens = ids(1, 9), ids(2, 9)
    wanted = [decoded(TransformersDecoding(made.model, CPU), t, 4) for t in tokens]
    found = [[d.feed(t[:, :4]).clone()] for d, t in zip(pair, tokens, strict=True)]
    for position in range(4, 9):
        for kept, decoding, t in zip(found, pair, tokens, strict=True):
            kept.append(decoding.feed(t[:, position : position + 1]).clone())
    for kept, logits in zip(found, wanted, strict=True):
        assert_close(torch.stack(kept, 1), logits)


@torch.no_grad()
def test_a_step_allocates_no_new_result(make_model, recorder):
    decoding = StaticModel(make_model("llama", kernel="cuda"), CPU, recorder).begin(1, 9)
    decoding.feed(ids(1, 4))
    assert decoding.feed(ids(1, 1)).data_ptr() == decoding.feed(ids(1, 1)).data_ptr()


@torch.no_grad()
def test_a_step_that_waits_for_the_device_runs_without_a_graph(make_model, recorder):
    model = make_model("llama", kernel="cuda")
    plain = copy.deepcopy(model)
    mlp = model.model.layers[1].mlp
    forward = mlp.forward
    mlp.forward = lambda x: forward(x) if float(x[0, 0, 0]) < 100 else x
    runtime = static_runtime(model, CPU, recorder)
    assert runtime.name == "static: no CUDA graph: operation not permitted when stream is capturing"
    assert recorder.captures == recorder.replays == 0
    tokens = ids(2, 12)
    assert_close(decoded(runtime.begin(2, 12), tokens, 4), decoded(TransformersDecoding(plain, CPU), tokens, 4))


@torch.no_grad()
def test_a_later_failure_leaves_what_was_captured(make_model, recorder):
    failing = []

    def capture(step):
        if failing:
            raise RuntimeError("no more\nof this")
        return recorder(step)

    made = StaticModel(make_model("llama", kernel="cuda"), CPU, capture)
    made.begin(1, 8)
    failing.append(True)
    assert made.begin(2, 8).feed(ids(2, 3)).shape == (2, 101)
    assert made.not_captured == "no more"
    decoding = made.begin(1, 8)
    decoding.feed(ids(1, 1))
    assert recorder.replays == 1


@torch.no_grad()
def test_what_is_timed_without_the_graph_of_the_name_is_told(make_model, recorder):
    def capture(step):
        if recorder.captures:
            raise RuntimeError("no more")
        return recorder(step)

    runtime = static_runtime(make_model("llama", kernel="cuda"), CPU, capture)
    assert runtime.name == "cuda-graph"
    runtime.begin(3, 8)
    assert runtime.otherwise(3, 8) == "a step without a CUDA graph: no more"
    assert runtime.otherwise(2, 8) is None  # the one that was proved
    failed = static_runtime(make_model("llama", kernel="cuda"), CPU, capture)
    failed.begin(3, 8)
    assert failed.name == "static: no CUDA graph: no more"
    assert failed.otherwise(3, 8) is None  # its name says so


@torch.no_grad()
def test_no_memory_for_a_graph_is_not_the_models_fault(make_model, recorder):
    tried = []

    def capture(step):
        tried.append(weakref.ref(step.__self__))
        if len(tried) == 1:
            raise torch.OutOfMemoryError("not enough")
        assert tried[0]() is None  # its cache is not in the way of the second try
        return recorder(step)

    made = StaticModel(make_model("llama", kernel="cuda"), CPU, capture)
    made.begin(1, 8)
    assert recorder.captures == 1
    assert made.not_captured is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_machine_without_a_gpu_imports_it():
    from awqbench.runtime.cuda_graph import CudaGraphs

    with pytest.raises((RuntimeError, AssertionError)):
        CudaGraphs(torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.no_grad()
def test_a_graph_on_the_device(make_model):
    from awqbench.runtime import attach

    model = make_model("llama", kernel="dequantize").to("cuda", torch.float16)
    plain = copy.deepcopy(model)
    runtime = attach(model, torch.device("cuda"), "cuda-graph")
    tokens = ids(2, 40)
    own = decoded(TransformersDecoding(plain, torch.device("cuda")), tokens, 5).float()
    found = decoded(runtime.begin(2, 40), tokens, 5).float()
    assert float((found - own).abs().max() / own.abs().max()) < 1e-2
