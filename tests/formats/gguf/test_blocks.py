import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.formats.gguf.blocks import block_type, pack_blocks
from awqbench.formats.scheme import Scheme
from awqbench.quantization.rounding import quantize
from awqbench.quantization.tensor import QuantizedTensor


@pytest.mark.parametrize(
    ("inputs", "scheme", "kind"),
    [
        (128, Scheme(4, 64), Type.Q4_1),
        (128, Scheme(4, 32, True), Type.Q4_0),
        (128, Scheme(4, -1), Type.Q4_1),
        (128, Scheme(3, 128), Type.Q4_1),
        (128, Scheme(2, 32, True), Type.Q4_0),
        (128, Scheme(8, 32, True), Type.Q8_0),
        (128, Scheme(8, 32), None),
        (128, Scheme(4, 16), None),
        (48, Scheme(4, -1), None),
        (128, Scheme(4, 96), None),
    ],
)
def test_the_type_for_a_scheme(inputs, scheme, kind):
    assert block_type(inputs, scheme) == kind


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from([2, 3, 4, 8]), blocks=st.integers(1, 3), groups=st.integers(1, 3), out=st.integers(1, 4),
    symmetric=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_blocks_hold_the_codes_as_they_are(bits, blocks, groups, out, symmetric, seed):
    size = 32 * blocks
    weight = torch.randn(out, size * groups, generator=torch.Generator().manual_seed(seed))
    quantized = quantize(weight, bits, size, symmetric=symmetric)
    kind = block_type(weight.shape[1], Scheme(bits, size, symmetric))
    if kind is None:
        assert (bits, symmetric) == (8, False)
        return
    found = gguf.quants.dequantize(pack_blocks(quantized, kind), kind)
    wanted = quantized.dequantize().numpy()
    if kind == Type.Q4_1:  # the offset alone is rounded: to eleven bits
        offset = (quantized.zeros.float() * quantized.scales.float()).repeat_interleave(size, dim=1).numpy()
        assert (np.abs(found - wanted) <= offset * 2**-11 + 1e-6).all()
    else:
        np.testing.assert_array_equal(found, wanted)


def test_one_block_by_hand():
    codes = torch.arange(32, dtype=torch.uint8).reshape(1, 32) % 16
    quantized = QuantizedTensor(codes, torch.tensor([[0.5]]).half(), torch.tensor([[3]], dtype=torch.uint8), 4, 32)
    data = pack_blocks(quantized, Type.Q4_1)
    assert data[0, :4].view(np.float16).tolist() == [0.5, -1.5]
    assert data[0, 4:].tolist() == [code | code << 4 for code in range(16)]


def test_an_activation_order_is_refused():
    """Whatever config.json says: the codes would be those of other inputs."""
    codes, order = torch.zeros(1, 64, dtype=torch.uint8), torch.arange(64).flip(0)
    quantized = QuantizedTensor(codes, torch.ones(1, 2).half(), torch.full((1, 2), 8, dtype=torch.uint8), 4, 32, order)
    with pytest.raises(UserError, match="activation order"):
        pack_blocks(quantized, Type.Q4_0)


def test_a_scale_beyond_float16_is_refused():
    codes = torch.zeros(1, 32, dtype=torch.uint8)
    quantized = QuantizedTensor(codes, torch.tensor([[1e5]]), torch.tensor([[8]], dtype=torch.uint8), 4, 32)
    with pytest.raises(UserError, match="100000 is beyond float16"):
        pack_blocks(quantized, Type.Q4_0)
