"""A real server, llama.cpp's, on a tiny model; and a double that speaks other servers' wire formats.

The double knows no model: its probabilities come from a random generator. What the tests learn from it is whether the
documented formats are read right, and nothing about those servers.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.backends.openai.backend import OpenAIBackend


@pytest.fixture(scope="session")
def prose() -> str:
    """76 tokens of English in the demo model's vocabulary, with a number in them."""
    return (
        "The lighthouse stood at the end of the pier, where the old ferry used to land. Every evening at six the "
        "keeper climbed its 112 steps, lit the lamp and wrote the weather into a book: wind from the west, rain before "
        "midnight, two ships in sight. Nobody had ever asked him to do so, and nobody but him had ever read what he "
        "wrote."
    )


@pytest.fixture(scope="session")
def folder() -> Path:
    """The demo model."""
    from awqbench.sources.models import resolve_model

    return resolve_model("demo").path


@pytest.fixture(scope="session")
def byte_pair_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama whose tokenizer joins bytes, as llama.cpp's must; half its tokens are no whole character."""
    from awqbench.sources.tiny import make_tiny

    folder = tmp_path_factory.mktemp("openai") / "model"
    merges = [("h", "e"), ("he", "r"), ("Ġ", "t"), ("Ġt", "he"), ("1", "9")]
    make_tiny(folder, hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=259 + len(merges))
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for number, pair in enumerate(merges):
        state["model"]["vocab"]["".join(pair)] = 259 + number
        state["model"]["merges"].append(pair)
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def llamacpp_url(serve_gguf: Callable[[Path], AbstractContextManager[str]], byte_pair_llama: Path) -> Iterator[str]:
    """base_url of llama.cpp's own server on the tiny model."""
    from awqbench.formats.gguf.export import export_gguf

    file = byte_pair_llama.parent / "model.gguf"
    export_gguf(byte_pair_llama, file, kind="f16")
    with serve_gguf(file) as address:
        yield address


@pytest.fixture
def backend() -> Iterator[Callable[..., OpenAIBackend]]:
    """Load a backend from its options; it is unloaded afterwards. Its description is `.found`."""
    loaded = []

    def load(base_url: str, unquantized: bool = False, **options: Any) -> OpenAIBackend:
        made = OpenAIBackend()
        settings = {"base_url": base_url, "retries": 2, "timeout": 30, **options}
        made.found = made.load({"settings": settings, "unquantized": unquantized})  # type: ignore[attr-defined]
        loaded.append(made)
        return made

    yield load
    for each in loaded:
        each.unload()


class Double:
    """Answers by script: `routes` maps a path to what a request's body yields.

    That is a status and an object (JSON), bytes (as they are), or a list (the events of a stream).
    """

    vocabulary = 50

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[dict[str, Any]], tuple[int, Any]]] = {}
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.features: set[str] = set()
        self.most = 20
        self.card: dict[str, Any] = {"id": "m", "owned_by": "double", "max_model_len": 64}
        self.routes["/v1/models"] = lambda body: (200, {"data": [self.card]})
        self.routes["/v1/completions"] = self.complete

    def after(self, ids: list[int]) -> np.ndarray:
        """Log-probabilities [vocabulary] after a prefix."""
        logits = np.random.default_rng([*ids, 7]).normal(0, 3, self.vocabulary)
        return logits - np.log(np.exp(logits).sum())

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """The likeliest continuation."""
        made: list[int] = []
        while len(made) < count:
            made.append(int(self.after([*ids, *made]).argmax()))
        return made

    def top(self, ids: list[int], k: int, *also: int) -> dict[int, float]:
        """The k likeliest tokens after a prefix, and others."""
        row = self.after(ids)
        return {int(t): float(row[t]) for t in dict.fromkeys([*also, *np.argsort(-row)[:k]])}

    def refuse(self, why: str, status: int = 400) -> tuple[int, Any]:
        """An error as OpenAI words it."""
        return status, {"error": {"message": why, "type": "BadRequestError"}}

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        """/v1/completions, with those of the extensions that `features` names."""
        ids, offers = body["prompt"], self.features
        extensions = {
            "prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids", "detokenize", "ignore_eos",
            "stop_token_ids", "repetition_penalty",
        }  # fmt: skip
        if body["model"] != "m":
            return self.refuse("The model does not exist.", 404)
        if "ids" not in offers or not isinstance(ids, list):
            return self.refuse("prompt must be a string")
        if "strict" in offers and (unknown := extensions & set(body) - offers):
            return self.refuse(f"Extra inputs are not permitted: {min(unknown)}")
        asked = max(body.get("logprobs") or 0, body.get("prompt_logprobs") or 0)
        if asked > self.most:
            return self.refuse(f"Requested logprobs of {asked}, more than {self.most}")
        count = body["max_tokens"]
        if count == 0 and not ("echo" in offers and body.get("echo")):
            return self.refuse("max_tokens must be at least 1")
        made = self.greedy(ids, count)
        stops = set(body.get("stop_token_ids", ())) if "stop_token_ids" in offers else set()
        end = next((at + 1 for at, token in enumerate(made) if token in stops), len(made))
        made = made[:end]
        reason = "stop" if end < count or (made and made[-1] in stops) else "length"
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(made)}
        if body.get("stream"):
            return 200, self.events(body, made, usage)
        found: dict[str, Any] = {"index": 0, "text": "x" * len(made), "finish_reason": reason, "logprobs": None}
        if "return_token_ids" in offers and body.get("return_token_ids"):
            found |= {"token_ids": made, "prompt_token_ids": ids}
        if "detokenize" in offers and body.get("detokenize") is False:
            found |= {"token_ids": made}
        if "prompt_logprobs" in offers and (k := body.get("prompt_logprobs")) is not None:
            rows: list[Any] = [None]
            for at in range(1, len(ids)):
                top = self.top(ids[:at], k, ids[at])
                rows.append({str(t): {"logprob": v, "rank": 1, "decoded_token": "x"} for t, v in top.items()})
            found["prompt_logprobs"] = rows
        if (k := body.get("logprobs")) is not None and "logprobs" in offers:
            echoed = ids if body.get("echo") and "echo" in offers else []
            found["logprobs"] = self.legacy([*ids, *made], len(ids) - len(echoed), k, body)
        return 200, {"choices": [found], "usage": usage}

    def legacy(self, ids: list[int], start: int, k: int, body: dict[str, Any]) -> dict[str, Any]:
        """OpenAI's logprobs object of ids[start:]."""
        named = "return_tokens_as_token_ids" in self.features and body.get("return_tokens_as_token_ids")

        def name(token: int) -> str:
            return f"token_id:{token}" if named else f"<{token}>"

        told = range(start, len(ids))
        return {
            "tokens": [name(ids[at]) for at in told],
            "token_logprobs": [float(self.after(ids[:at])[ids[at]]) if at else None for at in told],
            "top_logprobs": [{name(t): v for t, v in self.top(ids[:at], k).items()} if at else None for at in told],
        }

    def events(self, body: dict[str, Any], made: list[int], usage: dict[str, int]) -> list[Any]:
        """A stream, of one token each; of two with the feature "pairs"."""
        size = 2 if "pairs" in self.features else 1
        sent = []
        for at in range(0, len(made), size):
            piece: dict[str, Any] = {"index": 0, "text": "x"}
            if "return_token_ids" in self.features and body.get("return_token_ids"):
                piece["token_ids"] = made[at : at + size]
            sent.append({"choices": [piece]})
        if "usage" in self.features:
            sent.append({"choices": [], "usage": usage})
        return sent


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    disable_nagle_algorithm = True
    double: Double

    def do_GET(self) -> None:  # the standard library's name
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        self.double.seen.append((self.path, body, dict(self.headers)))
        route = self.double.routes.get(self.path)
        status, found = route(body) if route else (404, {"detail": "Not Found"})
        if found is None:  # the connection breaks
            self.close_connection = True
            return
        if isinstance(found, list):
            pieces = [b": a comment\n\n", *(f"data: {json.dumps(each)}\n\n".encode() for each in found)]
            data = b"".join([*pieces, b"data: [DONE]\n\n"])
        else:
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **self.double.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def double() -> Iterator[Double]:
    """A scripted server on loopback; its base_url is `.url`."""
    script = Double()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"double": script}))
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_port}/v1"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield script
    server.shutdown()
    thread.join()
    server.server_close()
