"""Peers without a GPU: their layouts, what they refuse, and the reason where they are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.formats import autoawq
from awqbench.formats.autoawq import ORDER, pack_words
from awqbench.formats.scheme import Scheme
from awqbench.kernelbench.peers import NAMES, PEERS, choose, installed, vllm_library
from awqbench.kernelbench.peers.cublas import Cublas
from awqbench.kernelbench.peers.machete import Machete
from awqbench.kernelbench.peers.marlin import Marlin, MarlinHalfReduce
from awqbench.kernelbench.peers.packing import awq_columns, marlin_scales, marlin_zeros
from awqbench.kernelbench.peers.tinygemm import Tinygemm
from awqbench.kernelbench.peers.vllm_awq import VllmAwq
from awqbench.kernelbench.problem import Shape, random_problem
from awqbench.kernelbench.reference import reference

CPU = torch.device("cpu")


def draw(n: int, columns: int) -> torch.Tensor:
    return torch.randint(16, (n, columns), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


@given(st.integers(1, 5), st.integers(1, 4), st.permutations(range(8)))
def test_words_hold_columns_in_order(rows: int, words: int, order: list[int]) -> None:
    values = draw(rows, 8 * words)
    packed = pack_words(values, tuple(order)).numpy().view(np.uint32)
    for nibble, column in enumerate(order):
        assert np.array_equal(packed >> np.uint32(4 * nibble) & np.uint32(15), values.numpy()[:, column::8])


def test_awq_words_are_those_of_our_checkpoints() -> None:
    weights = random_problem(Shape(32, 128, 64), 1, torch.float16, CPU).weights
    stored = autoawq.pack(weights, Scheme(bits=4, group_size=64, symmetric=False))
    assert torch.equal(awq_columns(weights.codes), stored["qweight"])
    assert torch.equal(awq_columns(weights.zeros), stored["qzeros"])


def test_marlins_order_by_hand() -> None:
    """Within 64 columns 8 runs of stride 8; per channel, pairs of neighbours 8 apart within 32."""
    columns = torch.arange(128.0).unsqueeze(1)
    grouped = marlin_scales(columns.expand(128, 2).contiguous(), per_channel=False)
    assert grouped.shape == (2, 128)
    assert grouped[1, :10].tolist() == [0, 8, 16, 24, 32, 40, 48, 56, 1, 9]
    assert grouped[0, 64:66].tolist() == [64, 72]
    single = marlin_scales(columns, per_channel=True)
    assert single[0, :10].tolist() == [0, 1, 8, 9, 16, 17, 24, 25, 2, 3]
    assert sorted(single[0].tolist()) == list(range(128))


def test_marlins_zero_points_by_hand() -> None:
    zeros = torch.zeros(64, 1, dtype=torch.uint8)
    zeros[torch.tensor([0, 8, 16, 24, 32, 40, 48, 56]), 0] = torch.arange(1, 9, dtype=torch.uint8)
    word = int(marlin_zeros(zeros)[0, 0]) & 0xFFFFFFFF
    assert [word >> 4 * nibble & 15 for nibble in range(8)] == [ORDER[nibble] + 1 for nibble in range(8)]


def test_cublas_multiplies() -> None:
    problem = random_problem(Shape(40, 64, 32), 3, torch.float16, CPU, bias=True)
    for bias in (None, problem.bias):
        packed = Cublas().pack(problem.weights, bias, torch.float16)
        expected = reference(type(problem)(problem.weights, problem.x, bias)).y
        torch.testing.assert_close(Cublas().run(packed, problem.x).double(), expected, rtol=2e-3, atol=0.05)


def test_on_a_cpu_cublas_alone_is_there_and_the_rest_say_why() -> None:
    present, told = installed(PEERS, CPU)
    assert [peer.name for peer in present] == ["cublas"]
    assert set(told) == set(NAMES)
    assert all(text.startswith("missing: ") for name, text in told.items() if name != "cublas")


def test_choice_by_name() -> None:
    assert choose("all") == list(PEERS)
    assert choose("none") == []
    assert [peer.name for peer in choose("marlin, cublas")] == ["cublas", "marlin"]
    with pytest.raises(UserError, match=r"unknown peer 'marlim'; did you mean 'marlin'"):
        choose("marlim")


@pytest.mark.parametrize(
    ("peer", "shape", "m", "dtype", "reason"),
    [
        (Marlin, Shape(128, 256, 128), 1, torch.bfloat16, None),
        (Marlin, Shape(128, 256, 256), 1, torch.float16, None),
        (Marlin, Shape(72, 256, 128), 1, torch.float16, "multiples of 64"),
        (Marlin, Shape(128, 512, 256), 1, torch.float16, "groups of 256"),
        (Machete, Shape(64, 256, 128), 1, torch.float16, "multiples of 128"),
        (Machete, Shape(128, 256, 32), 1, torch.float16, "groups of 32"),
        (Tinygemm, Shape(128, 256, 128), 1, torch.float16, "no float16 kernel"),
        (Tinygemm, Shape(128, 288, 288), 1, torch.bfloat16, "groups of 288"),
        (VllmAwq, Shape(128, 256, 128), 256, torch.float16, "dequantizes from 256"),
        (VllmAwq, Shape(128, 256, 128), 1, torch.bfloat16, "no bfloat16 kernel"),
    ],
)
def test_refusals(peer: type, shape: Shape, m: int, dtype: torch.dtype, reason: str | None) -> None:
    found = peer().refusal(shape, m, dtype)
    assert found is None if reason is None else reason in str(found)


def test_peers_without_a_bias_do_not_drop_it_silently() -> None:
    weights = random_problem(Shape(128, 128, 64), 1, torch.float16, CPU).weights
    for peer in (VllmAwq, Machete):
        with pytest.raises(ValueError, match="without a bias"):
            peer().pack(weights, torch.zeros(128, dtype=torch.float16), torch.float16)
    assert MarlinHalfReduce.fp32_reduce is False
    assert Marlin.fp32_reduce is True


def test_vllms_library_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = vllm_library.load.__wrapped__
    monkeypatch.delenv(vllm_library.ENVIRONMENT, raising=False)
    monkeypatch.setattr(vllm_library, "find_spec", lambda name: None)
    assert "vllm is not installed, and AWQBENCH_VLLM_SO" in load()
    monkeypatch.setenv(vllm_library.ENVIRONMENT, str(tmp_path / "none.so"))
    assert "does not exist" in load()
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    monkeypatch.setenv(vllm_library.ENVIRONMENT, str(broken))
    assert "does not load" in load()


def test_operators_are_called_by_the_names_of_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    library = torch.library.Library("awqbench_test_vllm", "DEF")
    library.define("f(Tensor a, Tensor? b, int c, bool d=True) -> Tensor")
    library.impl("f", lambda a, b, c, d=True: a * c if d and b is None else a, "CPU")
    monkeypatch.setattr(vllm_library, "operator", lambda name: getattr(torch.ops.awqbench_test_vllm, name).default)
    x = torch.ones(2)
    assert vllm_library.call("f", a=x, b=None, c=3, of_another_version=1).tolist() == [3, 3]
    assert vllm_library.call("f", a=x, b=None, c=3, d=False).tolist() == [1, 1]
    with pytest.raises(TypeError, match="wants an argument 'c'"):
        vllm_library.call("f", a=x, b=None)


def test_the_id_of_vllms_uint4() -> None:
    """As vllm.scalar_type.scalar_types.uint4.id of vLLM 0.25.1 prints it."""
    assert vllm_library.UINT4 == 1125899906843648
