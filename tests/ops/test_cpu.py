import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.ops import cpu
from awqbench.ops.layout import code_width, pack_rows

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason="no C++ compiler")
ALWAYS_DIRECT, ALWAYS_DENSE = 10**9, 0
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # of one number to the type


def supported() -> range:
    return range(cpu.best_isa() + 1)


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
    rows=st.integers(1, 20), out=st.integers(8, 70), blocks=st.integers(1, 5),
    group=st.sampled_from([16, 32, 64, 96, 128]), dense_from=st.sampled_from([ALWAYS_DIRECT, ALWAYS_DENSE]),
    bits=st.sampled_from([2, 3, 4, 8]), biased=st.booleans(), dtype=st.sampled_from(sorted(ROUNDING, key=str)),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_every_instruction_set_agrees_with_float64(
    isa, rows, out, blocks, group, dense_from, bits, biased, dtype, seed, make_quantized
):
    quantized = make_quantized(out, blocks * max(group, 32), group, bits, seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, quantized.codes.shape[1], generator=generator).to(dtype)
    bias = torch.randn(out, generator=generator).to(dtype) if biased else None
    got = run(quantized, x, bias, isa=isa, dense_from=dense_from)
    assert got.dtype == dtype
    assert relative_error(got, oracle(quantized, x, bias)) < 2e-6 + ROUNDING[dtype]


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


@pytest.mark.parametrize(("bits", "group"), [(4, 64), (4, 16), (8, 64)])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_an_input_row_gives_the_same_bits_in_any_batch_and_with_any_number_of_threads(
    bits, group, dtype, make_quantized, restore_threads
):
    quantized = make_quantized(195, 576, group, bits)
    x = torch.randn(23, 576).to(dtype)
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


@pytest.mark.parametrize("isa", supported())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_results_are_the_float_results_rounded_to_even_once(dtype, isa, make_quantized):
    """Groups of 32, so that all tiles are those of float; torch rounds as IEEE says."""
    quantized, x = make_quantized(203, 96, 32), torch.randn(5, 96).to(dtype)
    assert torch.equal(run(quantized, x, isa=isa), run(quantized, x.float(), isa=isa).to(dtype))


@pytest.mark.parametrize("isa", supported())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sign", [1, -1])
def test_ties_overflow_and_nan(sign, dtype, isa, make_quantized):
    """No weight but zeros, so that the bias decides: 1 and 3 halves of a last place are ties, and 65520 is a half's."""
    quantized = make_quantized(10, 32, 32)
    quantized.codes[:], quantized.zeros[:], quantized.scales[:] = 0, 0, 1
    ulp = torch.finfo(dtype).eps
    bias = sign * torch.tensor(
        [1 + ulp / 2, 1 + 1.5 * ulp, 1 + 0.51 * ulp, 3.4e38, torch.inf, torch.nan, 0.0, 1e-6, 65520, 65519]
    )
    got = run(quantized, torch.zeros(1, 32, dtype=dtype), bias, isa=isa)
    torch.testing.assert_close(got, bias.to(dtype)[None], rtol=0, atol=0, equal_nan=True)
    assert got[0, 0] == sign
    assert got[0, 1] == sign * (1 + 2 * ulp)


def test_an_input_of_another_width_is_refused(make_quantized):
    with pytest.raises(RuntimeError, match="63 columns where the weight has 64"):
        run(make_quantized(16, 64, 32), torch.randn(3, 63))


def test_what_fits():
    assert cpu.fits(13, 16, 64)
    assert not cpu.fits(13, 16, 48)
    assert not cpu.fits(13, 16)
    assert not cpu.fits(7, 32)
    assert not cpu.fits(16, 48)


def test_the_instruction_set_has_a_name():
    assert cpu.instruction_set() in cpu.DENSE_FROM
