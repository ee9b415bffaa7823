"""Error bounds: rounding passes, and a hundredth more does not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.kernelbench.accuracy import ENOUGH, RELATIVE, Error, error, too_wrong
from awqbench.kernelbench.problem import DTYPES, Shape, exact_problem, random_problem
from awqbench.kernelbench.reference import Reference, dense, reference

CPU = torch.device("cpu")


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 40), groups=st.integers(1, 5), group=st.sampled_from([32, 64, 128]), m=st.integers(1, 9),
    dtype=st.sampled_from(list(DTYPES)), bias=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_a_result_rounded_once_is_right(
    n: int, groups: int, group: int, m: int, dtype: str, bias: bool, seed: int
) -> None:
    problem = random_problem(Shape(n, groups * group, group), m, DTYPES[dtype], CPU, bias=bias, seed=seed)
    expected = reference(problem)
    found = error(expected.y.to(DTYPES[dtype]), expected)
    assert found.nonfinite == 0
    assert found.worst <= 1
    assert too_wrong(found, DTYPES[dtype]) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_element_far_off_is_wrong_though_the_whole_is_near(dtype: str) -> None:
    problem = random_problem(Shape(512, 256, 64), 8, DTYPES[dtype], CPU)
    expected = reference(problem)
    y = expected.y.to(DTYPES[dtype])
    smallest = divmod(int(expected.y.abs().argmin()), 512)
    y[smallest] += float(expected.y.norm()) * 2e-4
    found = error(y, expected)
    assert found.relative < RELATIVE[DTYPES[dtype]]
    assert "an element is" in str(too_wrong(found, DTYPES[dtype]))


def test_nan_never_passes_and_does_not_hide_the_rest() -> None:
    expected = Reference(torch.ones(2, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64))
    y = torch.tensor([[1.0, float("nan")], [float("inf"), 1.0]], dtype=torch.float16)
    found = error(y, expected)
    assert (found.nonfinite, found.worst) == (2, 0)
    assert too_wrong(found, torch.float16) == "2 elements are not finite"


def test_a_matmul_on_rounded_weights_is_the_yardstick_where_there_are_enough_elements() -> None:
    twice = Error(relative=4e-4, worst=0.5, nonfinite=0)
    assert too_wrong(twice, torch.float16, ENOUGH, 2e-4) is not None
    assert too_wrong(twice, torch.float16, ENOUGH - 1, 2e-4) is None
    assert too_wrong(twice, torch.float16, ENOUGH, 3.9e-4) is None


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 20), groups=st.integers(1, 4), dtype=st.sampled_from(list(DTYPES)), seed=st.integers(0, 2**31))
def test_exact_problems_have_results_that_16_bits_hold(n: int, groups: int, dtype: str, seed: int) -> None:
    problem = exact_problem(Shape(n, 32 * groups, 32), 5, DTYPES[dtype], CPU, seed=seed)
    y = reference(problem).y
    assert torch.equal(y.to(DTYPES[dtype]).double(), y)
    assert (problem.x != 0).sum(1).min() > 0


def test_dense_weights_are_rounded_once_and_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(Shape(70, 128, 32), 3, torch.float16, CPU)
    whole, expected = dense(problem.weights, torch.bfloat16), reference(problem)
    assert torch.equal(whole, problem.weights.dequantize(torch.float64).to(torch.bfloat16))
    monkeypatch.setattr("awqbench.kernelbench.reference.CHUNK", 128 * 16)
    assert torch.equal(dense(problem.weights, torch.bfloat16), whole)
    torch.testing.assert_close(reference(problem).y, expected.y, rtol=1e-12, atol=0)


def test_problems_use_the_whole_range() -> None:
    problem = random_problem(Shape(256, 512, 32), 4, torch.float16, CPU, bias=True)
    weights = problem.weights
    assert weights.codes.unique().tolist() == weights.zeros.unique().tolist() == list(range(16))
    assert 1e-4 <= float(weights.scales.min()) < 2e-4
    assert 5e-2 < float(weights.scales.max()) <= 1e-1
    assert float(problem.x.abs().max()) > 50
    assert problem.bias is not None
    again = random_problem(Shape(256, 512, 32), 4, torch.float16, CPU, bias=True)
    assert torch.equal(again.x, problem.x)


def test_a_shape_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="100 columns do not divide into groups of 32"):
        Shape(4, 100, 32)
    assert [str(Shape(8, 96, group)) for group in (32, 96)] == ["8x96 g32", "8x96 per channel"]


@settings(max_examples=15, deadline=None)
@given(groups=st.integers(1, 9), dtype=st.sampled_from(list(DTYPES)), seed=st.integers(0, 2**31))
def test_a_matmul_on_rounded_weights_is_within_the_bounds(groups: int, dtype: str, seed: int) -> None:
    """Calibration: weights rounded to 16 bits, sums in float32, as cuBLAS multiplies."""
    problem = random_problem(Shape(128, 128 * groups, 128), 16, DTYPES[dtype], CPU, seed=seed)
    plain = problem.x.float() @ dense(problem.weights, DTYPES[dtype]).float().T
    found = error(plain.to(DTYPES[dtype]), reference(problem))
    assert found.worst < 0.9
    assert too_wrong(found, DTYPES[dtype]) is None
