"""Connections, retries, deadlines and the errors that say what to check."""

import json
import socket
import threading
import time

import pytest

from awqbench.backends.openai.http import Client, events
from awqbench.backends.openai.settings import read_settings
from awqbench.errors import InvalidMeasurement, UserError


@pytest.fixture
def client(double, monkeypatch):
    """A client of the double; pauses between tries are kept, not slept."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    made = Client(read_settings({"base_url": double.url, "retries": 3, "timeout": 20}, unquantized=False))
    made.pauses = pauses
    yield made
    made.close_all()


def after(answers):
    """A route that gives one answer after another."""
    left = iter(answers)
    return lambda body: next(left)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(client, double, status):
    double.routes["/v1/x"] = after([(status, {}), (status, {}), (200, {"a": 1})])
    assert client.demand("/x", {}) == {"a": 1}
    assert client.pauses == [0.25, 0.5]


def test_retries_end(client, double):
    double.routes["/v1/x"] = lambda body: (503, {"error": {"message": "Loading model"}})
    with pytest.raises(InvalidMeasurement, match="answered 503: Loading model"):
        client.demand("/x", {})
    assert len(client.pauses) == 3


def test_the_server_says_how_long_to_wait(client, double):
    double.headers = {"Retry-After": "3"}
    double.routes["/v1/x"] = after([(429, {}), (200, {})])
    client.demand("/x", {})
    assert client.pauses == [3.0]


def test_a_broken_connection_is_opened_again(client, double):
    double.routes["/v1/x"] = after([(200, {}), (200, None), (200, None), (200, {"a": 1})])
    client.demand("/x", {})
    assert client.demand("/x", {}) == {"a": 1}
    assert client.pauses == [0.0, 0.25]
    double.routes["/v1/x"] = lambda body: (200, None)
    with pytest.raises(InvalidMeasurement, match="the connection broke 4 times"):
        client.demand("/x", {})


def test_connections_are_kept_per_thread(client, double):
    double.routes["/v1/x"] = lambda body: (200, {})
    first = client.connect()
    client.demand("/x", {})
    client.demand("/x", {})
    assert client.connect() is first
    others = []
    thread = threading.Thread(target=lambda: others.append(client.connect()))
    thread.start()
    thread.join()
    assert others[0] is not first


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"answered 401: no key.*api_key_env: no key was sent"),
        (403, r"answered 403: no key"),
        (404, r"answered 404: no key.*check options.base_url, http://127.0.0.1:\d+/v1, and options.model"),
        (307, r"moved to /elsewhere"),
    ],
)
def test_what_the_user_can_mend(client, double, status, message):
    double.headers = {"Location": "/elsewhere"}
    double.routes["/v1/x"] = lambda body: (status, {"error": {"message": "no key"}})
    with pytest.raises(UserError, match=message):
        client.demand("/x", {})


def test_the_key_is_sent_and_told_to_nobody(double, backend, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    double.features = {"ids", "return_token_ids"}
    double.routes["/v1/models"] = lambda body: (401, {"error": {"message": "who are you?"}})
    with pytest.raises(UserError, match=r"check the key in \$MY_KEY") as caught:
        backend(double.url, api_key_env="MY_KEY")
    assert double.seen[-1][2]["Authorization"] == "Bearer s3cret"
    del double.routes["/v1/models"]
    told = backend(double.url, api_key_env="MY_KEY", model="m", max_positions=9)
    assert "s3cret" not in str(caught.value) + json.dumps(told.found) + repr(told.settings)


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = Client(read_settings({"base_url": f"http://127.0.0.1:{port}/v1"}, unquantized=False))
    with pytest.raises(UserError, match=rf"http://127.0.0.1:{port}/v1/models: connection refused \(is the server"):
        client.get("/models")


def test_a_server_that_goes_away_costs_its_cell_alone(double):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        gone = Client(read_settings({"base_url": double.url}, unquantized=False))
        assert gone.get("/models").ok
        gone.close()
        gone._port = other.getsockname()[1]
        with pytest.raises(InvalidMeasurement, match="the server is gone: connection refused"):
            gone.get("/models")


def test_proxies_are_not_asked_for_this_machine(client, double, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    again = Client(client.settings)
    assert again.get("/models").ok
    again.close_all()
    away = Client(read_settings({"base_url": "http://model.example/v1"}, unquantized=False))
    assert away._proxy == ("127.0.0.1", 9)


def test_a_deadline(double):
    gate = threading.Event()
    double.routes["/v1/x"] = lambda body: (gate.wait(20), (200, {}))[1]
    client = Client(read_settings({"base_url": double.url, "timeout": 0.2}, unquantized=False))
    with pytest.raises(InvalidMeasurement, match=r"no whole answer within 0.2 s \(options.timeout allows more\)"):
        client.demand("/x", {})
    gate.set()
    client.close_all()


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"choices": ['])
def test_what_is_no_json(client, double, body):
    double.routes["/v1/x"] = lambda _: (200, body)
    with pytest.raises(InvalidMeasurement, match="answered what is no JSON"):
        client.demand("/x", {})


def test_an_answer_that_breaks_off(client, double):
    double.headers = {"Content-Length": "1000", "Connection": "close"}
    double.routes["/v1/x"] = lambda body: (200, {"a": 1})
    with pytest.raises(InvalidMeasurement, match="the connection broke 4 times"):
        client.demand("/x", {})


def test_what_is_no_http():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer():
            for _ in range(2):
                with server.accept()[0] as connection:
                    connection.recv(1000)
                    connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        client = Client(read_settings({"base_url": url, "retries": 1}, unquantized=False))
        with pytest.raises(InvalidMeasurement, match=r"the connection broke 2 times .BadStatusLine"):
            client.get("/models")
        thread.join()


def stream(client, double, data):
    double.routes["/v1/x"] = lambda body: (200, data)
    deadline = time.monotonic() + 20
    return [event for _, event in events(client, "/x", client.open("POST", "/x", {}, deadline), deadline)]


def test_a_stream_of_events(client, double):
    data = b': hello\r\nevent: token\r\ndata: {"a": 1}\r\n\r\ndata:{"a": 2}\n\nid: 7\n\ndata: [DONE]\n\n'
    assert stream(client, double, data) == [{"a": 1}, {"a": 2}]
    assert stream(client, double, b'data: {"a": 3}\n\n') == [{"a": 3}]  # llama.cpp's own ends without a word


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"data: {\n\n", "streamed what is no JSON"),
        (b"data: 7\n\n", "streamed an error: 7"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "streamed an error: .*out of memory"),
    ],
)
def test_a_stream_that_goes_wrong(client, double, data, message):
    with pytest.raises(InvalidMeasurement, match=message):
        stream(client, double, data)
