import pytest
import torch

from awqbench.errors import BackendUnavailable, UserError
from awqbench.ops import cpu, select_kernel

SIZES = {"dtype": torch.float32, "device": "cpu", "out_features": 64, "group_size": 64}


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(cpu, "unavailable", lambda: "no C++ compiler")


@pytest.mark.skipif(cpu.unavailable() is not None, reason="no C++ compiler")
def test_auto_takes_the_compiled_kernel_where_it_fits():
    assert select_kernel("auto", **SIZES) == "cpu"
    assert select_kernel("auto", **{**SIZES, "group_size": 48}) == "dequantize"
    assert select_kernel("auto", **{**SIZES, "group_size": 16}, in_features=64) == "cpu"
    assert select_kernel("auto", **{**SIZES, "group_size": 16}, in_features=48) == "dequantize"
    assert select_kernel("auto", **{**SIZES, "out_features": 13}) == "cpu"
    assert select_kernel("auto", **{**SIZES, "dtype": torch.bfloat16}) == "cpu"
    assert select_kernel("auto", **{**SIZES, "device": "cuda"}) == "dequantize"
    assert select_kernel("auto", **SIZES, bits=8) == "cpu"
    assert select_kernel("auto", **SIZES, half_scales=False) == "dequantize"


@pytest.mark.usefixtures("no_compiler")
def test_auto_without_a_compiler():
    assert select_kernel("auto", **SIZES) == "dequantize"
    assert select_kernel("auto", **{**SIZES, "dtype": torch.bfloat16}) == "torch-int4"
    assert select_kernel("auto", **{**SIZES, "dtype": torch.bfloat16, "out_features": 24}) == "dequantize"
    assert select_kernel("auto", **{**SIZES, "dtype": torch.bfloat16}, bits=8) == "dequantize"


@pytest.mark.usefixtures("no_compiler")
def test_a_kernel_asked_for_by_name_is_not_replaced():
    with pytest.raises(BackendUnavailable, match="compiler"):
        select_kernel("cpu", **SIZES)
    with pytest.raises(UserError, match=r"torch-int4.*float32"):
        select_kernel("torch-int4", **SIZES)
    with pytest.raises(UserError, match="did you mean 'cpu'"):
        select_kernel("cpus", **SIZES)
