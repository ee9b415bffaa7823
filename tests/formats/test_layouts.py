import pytest
import torch

from awqbench.errors import UserError
from awqbench.formats.layouts import LAYOUTS, Scheme, layout
from awqbench.quantization.mixed import bits_per_weight
from awqbench.quantization.rounding import quantize


def test_layouts_by_name():
    assert layout("awq") is layout("autoawq") is LAYOUTS["autoawq"]
    assert layout("compressed-tensors").method == "compressed-tensors"
    with pytest.raises(UserError, match="did you mean 'compressed-tensors'"):
        layout("compressed-tensor")


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_width_has_a_layout(bits):
    layout("compressed-tensors").refuse(Scheme(bits, 64))
    if bits <= 4:
        layout("autoawq").refuse(Scheme(bits, 64, True))
    else:
        with pytest.raises(UserError, match="format compressed-tensors"):
            layout("autoawq").refuse(Scheme(bits, 64))


def test_a_scheme_says_what_it_is():
    assert str(Scheme(4, 64)) == "4 bits in groups of 64, asymmetric"
    assert str(Scheme(8, -1, True)) == "8 bits per channel, symmetric"


def test_groups_of_a_row():
    assert [Scheme(4, 32).groups(inputs) for inputs in (32, 96, 48)] == [1, 3, 0]
    assert Scheme(4, -1).groups(50) == 1


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("name", "bits"), [("autoawq", 2), ("autoawq", 4), *(("compressed-tensors", b) for b in (2, 3, 4, 8))]
)
def test_what_a_linear_takes_is_what_its_held_scheme_says(name, bits, symmetric):
    scheme, weight = Scheme(bits, 32, symmetric), torch.randn(64, 96)
    packed = layout(name).pack(quantize(weight, bits, 32, symmetric), scheme)
    taken = sum(tensor.nbytes for suffix, tensor in packed.items() if suffix != "weight_shape")
    assert 8 * taken / weight.numel() == bits_per_weight(layout(name).held(scheme), 96)
