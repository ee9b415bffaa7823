"""The C step by itself: every instruction set, any number of threads, misuse."""

import pytest
import torch

from awqbench.ops import QuantizedLinear, cpu
from awqbench.runtime import TransformersDecoding
from awqbench.runtime.describe import describe
from awqbench.runtime.native import NativeModel, takes
from awqbench.runtime.stored import StoredEmbedding, StoredLinear, as_stored, multiply
from awqbench.runtime.structures import Linear

pytestmark = pytest.mark.usefixtures("native_kernel")
CPU = torch.device("cpu")
# Whole steps of 64 and 128 inputs and parts of them; groups shorter, as long and longer, and one per row.
SHAPES = [
    (64, 16), (32, 32), (64, 64), (96, 32), (96, 96), (160, 32), (192, 64), (288, 96), (640, 128), (1536, 64),
    (1536, 1536),
]  # fmt: skip


def steps(native, tokens, length=16):
    state = native.begin(tokens.shape[0], length)
    return torch.stack([state.step(column).clone() for column in tokens.T], 1)


def ids(batch, length):
    return torch.randint(3, 101, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("isa", [0, 1, 2], ids=["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("family", ["llama-tied", "gemma2", "phi3"])
@torch.no_grad()
def test_every_instruction_set(isa, family, make_model):
    model = make_model(family)
    if isa > cpu.best_isa():
        pytest.skip("this processor lacks the instructions")
    tokens = ids(3, 10)
    generic = TransformersDecoding(model, CPU)
    wanted = torch.stack([generic.feed(column[:, None]) for column in tokens.T], 1)
    found = steps(NativeModel(describe(model, takes), isa), tokens)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 2e-5


def packed_product(quantized, x, isa):
    layer = QuantizedLinear(quantized, kernel="cpu")
    pointers = layer.codes.data_ptr(), layer.scale_bits.data_ptr(), layer.zeros.data_ptr()
    shape = layer.out_features, layer.in_features, layer.group_size, layer.width
    out = x.new_empty(x.shape[0], layer.out_features)
    multiply(Linear(*pointers, None, *shape), x, out, isa)
    return out


@pytest.mark.parametrize("isa", [0, 1, 2], ids=["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize(("inputs", "group"), SHAPES)
def test_packed_rows_are_dequantize_and_multiply(inputs, group, bits, isa, make_quantized):
    if isa > cpu.best_isa():
        pytest.skip("this processor lacks the instructions")
    quantized = make_quantized(24, inputs, group, bits)
    x = torch.randn(5, inputs, generator=torch.Generator().manual_seed(2))
    x[1, inputs // 3] = 3000.0  # an outlier, as down projections see them
    x[2] = 0
    x[3] *= 1e-12
    x[4, : inputs // 2] *= 1e6
    wanted = x.double() @ quantized.dequantize().double().T
    found = packed_product(quantized, x, isa)
    # A tenth of the 1e-5 that is promised, of the largest output: an input meets the precision of its block's largest.
    assert bool(((found - wanted).abs() <= 1e-6 * wanted.abs().amax(1, keepdim=True)).all())
    assert torch.equal(found[1:2], packed_product(quantized, x[1:2], isa))


@pytest.mark.parametrize("isa", [0, 1, 2], ids=["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_stays_visible(bad, isa, make_quantized):
    if isa > cpu.best_isa():
        pytest.skip("this processor lacks the instructions")
    x = torch.ones(2, 128)
    x[0, 70] = bad
    found = packed_product(make_quantized(8, 128, 64), x, isa)
    assert not bool(found[0].isfinite().any())
    assert bool(found[1].isfinite().all())


@torch.no_grad()
def test_neither_threads_nor_the_batch_change_a_bit(make_model, restore_threads):
    native = NativeModel(describe(make_model("qwen3"), takes))
    tokens = ids(16, 9)
    torch.set_num_threads(1)
    alone = steps(native, tokens)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(steps(native, tokens), alone)
    for batch in (1, 2, 3, 5, 7):
        assert torch.equal(steps(native, tokens[:batch]), alone[:batch])


@torch.no_grad()
def test_misuse_is_refused_before_memory_is_touched(make_model):
    state = NativeModel(describe(make_model("llama"), takes)).begin(1, 2)
    for tokens in (torch.tensor([101]), torch.tensor([-1]), torch.tensor([1, 2]), torch.tensor([1], dtype=torch.int32)):
        with pytest.raises(IndexError, match="allowed: 1 ids below 101"):
            state.step(tokens)
    for _ in range(state.capacity):
        state.step(torch.tensor([3]))
    with pytest.raises(IndexError, match="is full"):
        state.step(torch.tensor([3]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 3, 4, 16, 17])
@pytest.mark.parametrize("inputs", [40, 64, 7])
def test_a_head_in_sixteen_bits_is_the_head_in_float32(dtype, rows, inputs, make_model):
    scale = 1.0 if dtype is torch.float16 else 2.0**-40  # float16 would hold most of bfloat16's numbers too
    weight = (scale * torch.randn(101, inputs, generator=torch.Generator().manual_seed(0))).to(dtype).float()
    stored = as_stored(weight)
    assert stored.dtype is dtype
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(1)) / scale
    torch.testing.assert_close(StoredLinear(stored)(x), x @ weight.T, rtol=1e-5, atol=1e-5)
    table = torch.arange(101).view(1, -1)
    assert torch.equal(StoredEmbedding(stored, 2.0)(table), weight[table] * 2)


def test_values_that_sixteen_bits_cannot_hold_stay_as_they_are():
    weight = torch.tensor([[1.0, 1 / 3]])
    assert as_stored(weight).data_ptr() == weight.data_ptr()
    assert as_stored(torch.tensor([[6e-8, 65504.0]]).half().float()).dtype is torch.float16
    assert as_stored(torch.tensor([[1e-30]]).bfloat16().float()).dtype is torch.bfloat16
