import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.ops import cpu
from awqbench.ops.layout import code_width, pack_rows

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason="no C++ compiler")
ALWAYS_DIRECT, ALWAYS_DENSE = 10**9, 0


def supported() -> range:
    return range(cpu._functions()[2] + 1)


def run(quantized, x, bias=None, **options):
    width = code_width(quantized.bits)
    codes = pack_rows(quantized.codes, quantized.group_size, width)
    return cpu.linear(x, codes, quantized.scales, quantized.zeros, bias, quantized.group_size, width, **options)


def oracle(quantized, x, bias=None):
    out = x.double() @ quantized.dequantize(torch.float64).T
    return out if bias is None else out + bias.double()


def relative_error(got, expected):
    return ((got.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("isa", supported())
@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 20), eighths=st.integers(1, 9), groups=st.integers(1, 5),
    group=st.sampled_from([32, 64, 96, 128]), dense_from=st.sampled_from([ALWAYS_DIRECT, ALWAYS_DENSE]),
    bits=st.sampled_from([2, 3, 4, 8]), biased=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_every_instruction_set_agrees_with_float64(
    isa, rows, eighths, groups, group, dense_from, bits, biased, seed, make_quantized
):
    quantized = make_quantized(8 * eighths, groups * group, group, bits, seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, groups * group, generator=generator)
    bias = torch.randn(8 * eighths, generator=generator) if biased else None
    got = run(quantized, x, bias, isa=isa, dense_from=dense_from)
    assert relative_error(got, oracle(quantized, x, bias)) < 1e-5


@pytest.mark.parametrize("isa", supported())
@pytest.mark.parametrize("bits", [4, 8])
def test_dequantized_weights_are_exact(bits, isa, make_quantized):
    """An identity as input reads the weights out: (code - zero) * scale fits a float, so not one bit may differ."""
    quantized = make_quantized(16, 128, 64, bits)
    tiny = quantized.scales.clone()
    tiny[0] = 6e-8  # a subnormal half
    tiny[1] = 0
    tiny[2] = 65504
    quantized = type(quantized)(quantized.codes, tiny, quantized.zeros, bits, 64)
    for dense_from in (ALWAYS_DIRECT, ALWAYS_DENSE):
        got = run(quantized, torch.eye(128), isa=isa, dense_from=dense_from)
        assert torch.equal(got, quantized.dequantize().T)


@pytest.mark.parametrize("bits", [4, 8])
def test_an_input_row_gives_the_same_bits_in_any_batch_and_with_any_number_of_threads(
    bits, make_quantized, restore_threads
):
    quantized = make_quantized(192, 576, 64, bits)
    x = torch.randn(23, 576)
    whole = run(quantized, x, dense_from=ALWAYS_DIRECT)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(run(quantized, x, dense_from=ALWAYS_DIRECT), whole)
        assert torch.equal(run(quantized, x[5:6], dense_from=ALWAYS_DIRECT), whole[5:6])


@pytest.mark.parametrize("rows", [64, 257])
def test_the_chunked_path_gives_the_same_bits_with_any_number_of_threads(rows, make_quantized, restore_threads):
    quantized, x = make_quantized(576, 576, 64), torch.randn(rows, 576)
    results = []
    for threads in (1, 2, 1, 3):
        torch.set_num_threads(threads)
        results.append(run(quantized, x, dense_from=ALWAYS_DENSE))
    assert all(torch.equal(result, results[0]) for result in results)


def test_several_chunks_with_a_partial_last_one(make_quantized, monkeypatch):
    monkeypatch.setattr(cpu, "SCRATCH_BYTES", 4 * 64 * 24)
    quantized, x = make_quantized(40, 64, 32), torch.randn(5, 64)
    assert relative_error(run(quantized, x, dense_from=ALWAYS_DENSE), oracle(quantized, x)) < 1e-5


def test_one_group_for_a_whole_row(make_quantized):
    quantized, x = make_quantized(16, 288, 288), torch.randn(3, 288)
    assert relative_error(run(quantized, x), oracle(quantized, x)) < 1e-5


def test_a_transposed_input_is_read_right(make_quantized):
    quantized, x = make_quantized(16, 64, 32), torch.randn(64, 3).T
    assert torch.equal(run(quantized, x), run(quantized, x.contiguous()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_narrow_activations_are_rounded_once(dtype, tolerance, make_quantized):
    quantized, x = make_quantized(64, 256, 64), torch.randn(4, 256).to(dtype)
    got = run(quantized, x)
    assert got.dtype == dtype
    assert relative_error(got, oracle(quantized, x)) < tolerance


def test_the_instruction_set_has_a_name():
    assert cpu.instruction_set() in ("scalar", "avx2", "avx512")
