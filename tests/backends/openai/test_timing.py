"""Events to the times of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.backends.openai.timing import token_times
from awqbench.errors import InvalidMeasurement


def test_an_event_for_each_token():
    assert token_times([(1.0, 1), (1.5, 0), (2.0, 1), (4.0, 1)], 3) == [1.0, 2.0, 4.0]


def test_a_rare_event_of_two_shares_its_gap(capsys):
    single = [(float(at), 1) for at in range(19)]
    times = token_times([*single[:10], (11.0, 2), *((stamp + 2, 1) for stamp, _ in single[10:18])], 20)
    assert times[9:13] == [9.0, 10.0, 11.0, 12.0]
    assert "2 of 20 tokens came together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([(0.0, 2), *((float(at), 1) for at in range(1, 19))], "2 of 20 tokens came in 1 events of several"),
        ([(0.0, 1), (1.0, 3), *((float(at), 1) for at in range(2, 18))], "3 of 20 tokens came in 1 events"),
        ([(0.0, 1)] * 19, "streamed 19 tokens where 20 were asked for"),
    ],
)
def test_what_cannot_be_told_apart(events, message):
    with pytest.raises(InvalidMeasurement, match=message):
        token_times(events, 20)


@given(st.lists(st.floats(1e-4, 1.0), min_size=30, max_size=40), st.integers(1, 28))
def test_times_rise_and_end_with_the_last_event(gaps, double):
    stamps = [sum(gaps[: at + 1]) for at in range(len(gaps))]
    events = [(stamp, 2 if at == double else 1) for at, stamp in enumerate(stamps)]
    times = token_times(events, len(gaps) + 1)
    assert len(times) == len(gaps) + 1
    assert times == sorted(times)
    assert (times[0], times[-1]) == (stamps[0], stamps[-1])
