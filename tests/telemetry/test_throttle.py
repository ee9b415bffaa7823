"""Which clock-lowering reasons make a timing untrustworthy."""

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.telemetry import throttle


def test_bits_are_nvmls_own() -> None:
    assert pynvml.nvmlClocksEventReasonSwPowerCap == throttle.POWER_CAP
    counted = (
        pynvml.nvmlClocksEventReasonHwSlowdown
        | pynvml.nvmlClocksEventReasonSwThermalSlowdown
        | pynvml.nvmlClocksEventReasonHwThermalSlowdown
        | pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
    )
    assert counted == throttle.THROTTLING
    assert sum(throttle.REASONS) == pynvml.nvmlClocksEventReasonAll


@pytest.mark.parametrize(
    ("mask", "names", "throttled"),
    [
        (0, [], False),
        (0x1, ["idle"], False),
        (0x4, ["software power cap"], False),
        (0x24, ["software power cap", "software thermal slowdown"], True),
        (0x80, ["hardware power brake"], True),
        (0x1000, ["0x1000"], False),
    ],
)
def test_golden_masks(mask: int, names: list[str], throttled: bool) -> None:
    assert throttle.names(mask) == names
    assert throttle.throttled(mask) is throttled


@given(st.integers(0, 2**12 - 1), st.integers(0, 2**12 - 1))
def test_a_union_of_reasons_throttles_when_one_does(a: int, b: int) -> None:
    assert throttle.throttled(a | b) == (throttle.throttled(a) or throttle.throttled(b))
