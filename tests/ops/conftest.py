from collections.abc import Callable

import pytest
import torch

from awqbench.quantization.tensor import QuantizedTensor


@pytest.fixture(scope="session")
def make_quantized() -> Callable[..., QuantizedTensor]:
    """Random integers of a linear [out, inputs]; the same arguments give the same integers."""

    def make(out: int, inputs: int, group_size: int, bits: int = 4, seed: int = 0) -> QuantizedTensor:
        generator = torch.Generator().manual_seed(seed)
        groups = inputs // group_size
        return QuantizedTensor(
            codes=torch.randint(0, 2**bits, (out, inputs), generator=generator, dtype=torch.uint8),
            scales=(torch.rand(out, groups, generator=generator) * 0.02 + 1e-3).half(),
            zeros=torch.randint(0, 2**bits, (out, groups), generator=generator, dtype=torch.uint8),
            bits=bits,
            group_size=group_size,
        )

    return make


@pytest.fixture
def restore_threads():
    """Leave torch's thread count as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
