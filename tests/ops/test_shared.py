"""Linears that share a weight: the numbers of each by itself, whoever is called when and with what."""

import copy
import gc
import pickle
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.ops import QuantizedLinear, cuda, shared
from awqbench.ops.shared import SharedWeight

WIDTHS = (64, 48, 130)  # whole row tiles, less than one, two and a bit


@pytest.fixture
def products(monkeypatch):
    """The number of rows of each product that is computed."""
    done = []

    def counted(x, tiles, steps, bias, out_features, group_size):
        done.append(out_features)
        return cuda.w4a16_gemm(x, tiles, steps, bias, out_features, group_size)

    class Counting:
        w4a16_gemm, reserve = staticmethod(counted), staticmethod(cuda.reserve)

    monkeypatch.setattr(shared, "cuda", Counting)
    monkeypatch.setattr("awqbench.ops.linear.cuda", Counting)
    return done


def linears(make_quantized, widths=WIDTHS, biased=True, **options):
    return [
        QuantizedLinear(make_quantized(n, 64, 32, seed=i), torch.randn(n) if biased else None, kernel="cuda", **options)
        for i, n in enumerate(widths)
    ]


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("codes", "scales", "zeros"))


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("shape", [(64,), (1, 1, 64), (2, 3, 64), (0, 64)])
def test_each_gets_its_rows_of_one_product(order, shape, make_quantized, products):
    parts = linears(make_quantized)
    x = torch.randn(shape)
    alone = [part(x) for part in parts]
    products.clear()
    whole = SharedWeight(parts)
    for _ in range(2):
        for index in order:
            torch.testing.assert_close(parts[index](x), alone[index], rtol=1e-5, atol=1e-5)
    assert products == [whole.out_features] * 2 == [64 + 64 + 192] * 2


@settings(deadline=None, max_examples=60)
@given(calls=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.booleans()), max_size=12))
def test_any_calls_give_the_numbers_of_each_by_itself(calls, make_quantized):
    """Part, which of two inputs, and whether the input is written to before or the output after."""
    parts = linears(make_quantized)
    apart = copy.deepcopy(parts)
    SharedWeight(parts)
    inputs = [torch.randn(2, 64) for _ in "xy"]
    for part, which, writes in calls:
        x = inputs[which]
        if writes:
            x.mul_(1.5)
        found = parts[part](x)
        torch.testing.assert_close(found, apart[part](x), rtol=1e-5, atol=1e-5)
        if writes:
            found.zero_()


def test_another_tensor_of_the_same_numbers_is_multiplied_by_its_own_rows(make_quantized, products):
    first, second, _ = linears(make_quantized)
    SharedWeight([first, second])
    x = torch.randn(3, 64)
    other = x.clone()
    first(x), second(other), first(other)
    assert products == [128, 128]
    products.clear()
    first(x), first(x), second(x)
    assert products == [128, 64]


def test_nothing_is_kept_of_an_input_that_is_gone(make_quantized):
    first, second, _ = linears(make_quantized)
    whole = SharedWeight([first, second])
    x = torch.randn(1, 64)
    first(x)
    assert whole._product is not None
    del x
    gc.collect()
    assert whole._product is None
    x = torch.randn(1, 64)
    first(x), second(x)
    assert whole._product is None


def test_without_version_counters_each_multiplies_by_itself(make_quantized, products):
    first, second, _ = linears(make_quantized)
    SharedWeight([first, second])
    with torch.inference_mode():
        x = torch.randn(1, 64)
        first(x), second(x)
    assert products == [64, 48]


@pytest.mark.parametrize("biased", [True, False])
def test_memory_is_held_once_and_comes_back_to_the_bit(biased, make_quantized):
    parts = linears(make_quantized, biased=biased)
    biases = [None if part.bias is None else part.bias.clone() for part in parts]
    before = sum(part.get_buffer(name).nbytes for part in parts for name in ("tiles", "steps"))
    SharedWeight(parts)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for p in parts for t in p.buffers()}
    padded = 4 * (64 + 64 + 192) if biased else 0
    assert sum(storages.values()) == before + padded
    for index, part in enumerate(parts):
        assert same(part.to_quantized(), make_quantized(WIDTHS[index], 64, 32, seed=index))
        assert biases[index] is None or torch.equal(part.bias, biases[index])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moving_and_casting_keep_one_memory(dtype, make_quantized, products):
    parts = torch.nn.ModuleList(linears(make_quantized))
    whole = SharedWeight(list(parts))
    parts.to(dtype).to("cpu")
    x = torch.randn(2, 64, dtype=dtype)
    found = [part(x) for part in parts]
    assert products == [whole.out_features]
    assert {part.bias.dtype for part in parts} == {dtype}
    assert len({part.bias.untyped_storage().data_ptr() for part in parts}) == 1
    assert len({part.tiles.untyped_storage().data_ptr() for part in parts}) == 1
    for part in parts:
        part.share(None)
    for part, together in zip(parts, found, strict=True):
        torch.testing.assert_close(part(x), together)
    moved = parts.to("meta")
    assert all(part.tiles.is_meta for part in moved)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda parts: pickle.loads(pickle.dumps(parts))])
def test_copies_share_among_themselves(copied, make_quantized, products):
    parts = linears(make_quantized)
    whole = SharedWeight(parts)
    x = torch.randn(2, 64)
    parts[0](x)  # with a product under way
    again = copied(parts)
    products.clear()
    assert again[0].shared is not whole
    torch.testing.assert_close([part(x) for part in again], [part(x) for part in linears_apart(parts)])
    assert products == [whole.out_features, *WIDTHS]


def linears_apart(parts):
    apart = copy.deepcopy(parts)
    for part in apart:
        part.share(None)
    return apart


def test_the_whole_weight_is_of_all_its_parts_in_order(make_quantized):
    parts = linears(make_quantized)
    whole = SharedWeight(parts)
    assert whole.is_of(parts)
    assert not any(map(whole.is_of, (parts[:2], parts[::-1], [*parts, parts[0]], linears(make_quantized))))
    tiles, steps, bias = whole.whole()
    x = torch.randn(3, 64)
    y = cuda.w4a16_gemm(x, tiles, steps, bias, whole.out_features, 32)[:, whole.columns()]
    torch.testing.assert_close(y, torch.cat([part(x.clone()) for part in parts], 1))
    parts[1]._buffers["tiles"] = parts[1].tiles.clone()
    assert not whole.is_of(parts)


def test_other_weights_put_in_the_place_of_a_part_are_used(make_quantized):
    first, second, _ = linears(make_quantized, biased=False)
    SharedWeight([first, second])
    other = QuantizedLinear(make_quantized(48, 64, 32, seed=9), kernel="cuda")
    second.load_state_dict(other.state_dict())  # into the shared memory
    x = torch.randn(2, 64)
    first(x)
    torch.testing.assert_close(second(x), other(x))
    second.load_state_dict(QuantizedLinear(make_quantized(48, 64, 32, seed=8), kernel="cuda").state_dict(), assign=True)
    other = QuantizedLinear(make_quantized(48, 64, 32, seed=8), kernel="cuda")
    torch.testing.assert_close(second(x), other(x))
    first(x)
    torch.testing.assert_close(second(x), other(x))


def test_a_compiled_module_multiplies_each_by_itself(make_quantized):
    parts = linears(make_quantized)
    apart = linears_apart(parts)
    SharedWeight(parts)
    compiled = torch.compile(lambda x: [part(x) for part in parts], backend="eager", fullgraph=True)
    x = torch.randn(2, 64)
    torch.testing.assert_close(compiled(x), [part(x) for part in apart])


def test_schemes_that_differ_are_refused(make_quantized):
    first = QuantizedLinear(make_quantized(64, 64, 32), kernel="cuda")
    others = [
        QuantizedLinear(make_quantized(64, 64, 64), kernel="cuda"),
        QuantizedLinear(make_quantized(64, 128, 32), kernel="cuda"),
        QuantizedLinear(make_quantized(64, 64, 32, 3), kernel="cuda"),
        QuantizedLinear(make_quantized(64, 64, 32), torch.zeros(64), kernel="cuda"),
    ]
    for other in others:
        with pytest.raises(ValueError, match="share a weight"):
            SharedWeight([first, other])
    with pytest.raises(ValueError, match="share a weight"):
        SharedWeight([first])


def test_a_product_of_another_stream_or_of_before_a_capture_is_not_used(make_quantized, products, monkeypatch):
    first, second, _ = linears(make_quantized)
    SharedWeight([first, second])
    x, place = torch.randn(1, 64), [0, False]
    monkeypatch.setattr(shared, "_state", lambda x: (x._version, *place))
    for change in ([0, True], [1, True], [1, False]):
        first(x)
        place[:] = change
        products.clear()
        second(x)
        assert products == [128]  # multiplied anew, where and when it is asked for
        first(x)
    assert shared._state(x) == (0, 1, False)
