"""The options table is checked before anybody is asked."""

import pytest

from awqbench.backends.openai.settings import OPTIONS, read_settings
from awqbench.backends.registry import kind
from awqbench.errors import NotApplicable, UserError

URL = {"base_url": "http://localhost:8000/v1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "options.base_url is missing"),
        ({"base_url": "localhost:8000"}, "options.base_url is 'localhost:8000' .allowed: http"),
        ({"base_url": "http://h:99999/v1"}, "no such port"),
        ({"base_url": "http://me:pw@h/v1"}, "user or password"),
        ({**URL, "concurrency": 0}, "options.concurrency is 0 .allowed: a whole number from 1 on"),
        ({**URL, "topk": True}, "options.topk is True"),
        ({**URL, "distributions": "all"}, "unknown options.distributions 'all'.*allowed: top, whole"),
        ({**URL, "timeout": -1}, "options.timeout is -1"),
        ({**URL, "timeout": float("inf")}, "options.timeout is inf"),
        ({**URL, "headers": {"Authorization": "x"}}, "holds Authorization, which would stand in the record"),
        ({**URL, "headers": {"X": "a\nb"}}, "line break"),
        ({**URL, "extra_body": 3}, "options.extra_body is 3 .allowed: a table"),
        ({**URL, "model": ""}, "options.model is ''"),
        ({**URL, "api_key_env": "NOT_THERE_AT_ALL"}, "no environment variable of that name"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(UserError, match=message):
        read_settings(options, unquantized=False)


def test_the_unquantized_weights_have_a_server_of_their_own():
    both = {**URL, "model": "q", "parity_base_url": "https://h/v1/", "parity_model": "f"}
    found = read_settings(both, unquantized=True)
    assert (found.base_url, found.model) == ("https://h/v1", "f")
    with pytest.raises(NotApplicable, match="parity is unmeasured"):
        read_settings(URL, unquantized=True)


def test_the_kind_declares_every_option():
    found = kind("openai")
    assert (found.weights, found.engine, found.modules, found.environment) == ("server", "openai", (), None)
    assert found.options == OPTIONS
    assert set(found.weight_options) < set(OPTIONS)
