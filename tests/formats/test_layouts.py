import pytest

from awqbench.errors import UserError
from awqbench.formats.layouts import LAYOUTS, Scheme, layout


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
