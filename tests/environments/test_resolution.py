"""Which interpreter a kind gets, in which order, and what is said where there is none."""

from __future__ import annotations

import os
import sys
import venv
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from awqbench import environments
from awqbench.backends.kind import Kind
from awqbench.backends.registry import kinds
from awqbench.environments import interpreter, resolve
from awqbench.environments.resolution import WORKER_MODULES
from awqbench.errors import BackendUnavailable

from .conftest import Playground


def engine(modules: tuple[str, ...] = ("no_such_engine",), environment: str | None = "e", **more: Any) -> Kind:
    """A kind of a plugin."""
    return Kind("engine", "nowhere:Engine", "", "folder", "engine", modules, environment=environment, **more)


HERE = engine(modules=("numpy",))


def add_module(folder: Path, name: str, version: str = "1.0") -> None:
    """Put a module with its metadata into a virtual environment."""
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / f"{name}.py").touch()
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(f"{name}\n")
    interpreter.look.cache_clear()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A virtual environment that is none of ours, with numpy's name in it."""
    folder = tmp_path / "other"
    venv.create(folder, symlinks=True)
    add_module(folder, "numpy", "9.9")
    return folder


def refusal(kind: Kind, python: str | None = None) -> str:
    with pytest.raises(BackendUnavailable) as caught:
        resolve(kind, python)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_running_interpreter_where_it_has_the_modules(playground: Playground, forged: Any) -> None:
    playground.define("e")
    forged("e")
    found = resolve(HERE)
    assert (found.path, found.origin) == (sys.executable, "core")
    assert found.versions == {"numpy": np.__version__}
    named = resolve(engine(modules=(), distributions=("torch", "Typing_Extensions", "no-such-distribution")))
    assert named.versions == {"torch": torch.__version__, "Typing_Extensions": version("typing-extensions")}


def test_a_kind_without_modules_runs_here(playground: Playground) -> None:
    assert resolve(engine(modules=(), environment=None)).origin == "core"


def test_the_environment_where_it_has_not(playground: Playground, forged: Any) -> None:
    playground.define("e")
    folder = forged("e")
    add_module(folder, "no_such_engine", "3.1")
    add_module(folder, "numpy", "9.9")
    found = resolve(engine())
    assert (found.path, found.origin) == (str(folder / "bin" / "python"), "environment")
    assert found.versions == {"no-such-engine": "3.1"}
    assert resolve(engine(distributions=("numpy", "torch"))).versions == {"numpy": "9.9"}


def test_the_given_one_before_all(playground: Playground, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = str(other / "bin" / "python")
    found = resolve(HERE, python)
    assert (found.path, found.origin, found.versions) == (python, "given", {"numpy": "9.9"})
    monkeypatch.chdir(other)
    assert resolve(HERE, "bin/python").path == python
    monkeypatch.setenv("PATH", str(other / "bin"), prepend=os.pathsep)
    assert resolve(HERE, "python").path == python


def test_an_interpreter_is_asked_once(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = str(other / "bin" / "python")
    first = resolve(HERE, python)
    monkeypatch.setattr(interpreter, "_ask", lambda *_: pytest.fail("asked again"))
    assert resolve(HERE, python) == first


def test_what_a_given_interpreter_is_refused_for(playground: Playground, other: Path, tmp_path: Path) -> None:
    playground.define("e")
    python = str(other / "bin" / "python")
    assert refusal(engine(), python) == (
        f"{python} (python of the kind 'engine') lacks no_such_engine: install it there, or leave `python` out and "
        "run: awqbench env create e"
    )
    assert refusal(engine(environment=None), python).endswith("lacks no_such_engine: install it there")
    bare = tmp_path / "bare"
    venv.create(bare, symlinks=True)
    assert f"lacks {WORKER_MODULES[0]}" in refusal(engine(modules=("json",)), str(bare / "bin" / "python"))
    assert refusal(engine(), "./none/python").endswith("there is no such interpreter")
    assert "is no Python interpreter: exit status 1" in refusal(engine(), "/bin/false")
    text = tmp_path / "text"
    text.write_text("no program")
    assert "is no Python interpreter: Permission denied" in refusal(engine(), str(text))


def test_what_is_said_where_the_environment_is_not_ready(playground: Playground, forged: Any) -> None:
    playground.define("e")
    lacks = "the kind 'engine' needs no_such_engine, which this Python lacks"
    assert refusal(engine()) == f"{lacks}; run: awqbench env create e"
    (playground.place / "e").mkdir()
    interrupted = "(the environment is incomplete: making it was interrupted)"
    assert refusal(engine()) == f"{lacks} {interrupted}; run: awqbench env create e"
    (playground.place / "e").rmdir()
    folder = forged("e")
    assert refusal(engine()) == "the environment e lacks no_such_engine, numpy; run: awqbench env create e --force"
    playground.define("e", "something==1.0\n")
    assert "(the environment is outdated: its requirements have changed since)" in refusal(engine())
    assert folder.exists()


def test_a_kind_whose_environment_nobody_defines(playground: Playground) -> None:
    for kind in (engine(environment=None), engine(environment="plugin")):
        assert refusal(kind).endswith("install it beside awqbench, or give the backend a `python` that has it")


def test_one_of_two_modules_is_enough(playground: Playground) -> None:
    kind = replace(engine(), modules=("no_such_module|json",))
    assert resolve(kind).origin == "core"
    with pytest.raises(BackendUnavailable, match="no_such_module or nor_this"):
        resolve(replace(engine(), modules=("no_such_module|nor_this",), environment=None))


def test_nothing_is_imported(playground: Playground, other: Path, tmp_path: Path) -> None:
    add_module(other, "no_such_engine")
    site = next((other / "lib").glob("python*/site-packages"))
    (site / "no_such_engine.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    resolve(engine(), str(other / "bin" / "python"))
    assert not (tmp_path / "imported").exists()
    assert not environments.definitions()


def test_every_kind_has_an_environment_that_holds_what_it_needs() -> None:
    found = environments.definitions()
    for kind in kinds().values():
        if kind.environment is not None and kind.target.startswith("awqbench."):
            assert kind.environment in found, kind.name
            has = set(found[kind.environment].modules)
            assert all(has & set(module.split("|")) for module in kind.modules), kind.name
            assert kind.name in found[kind.environment].kinds
