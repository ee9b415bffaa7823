"""Which interpreter a kind gets, in which order, and what is said where there is none."""

from __future__ import annotations

import os
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from awqbench import environments
from awqbench.environments import interpreter, resolve
from awqbench.environments.resolution import WORKER_MODULES
from awqbench.errors import BackendUnavailable

from .conftest import Playground


@dataclass(frozen=True)
class Kind:
    """What `resolve` reads of a registered kind."""

    name: str = "engine"
    modules: tuple[str, ...] = ("no_such_engine",)
    environment: str | None = "e"


HERE = Kind(modules=("numpy",))


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
    import numpy as np
    import torch

    assert found.versions["numpy"] == np.__version__
    assert found.versions["torch"] == torch.__version__
    assert found.versions["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_kind_without_modules_runs_here(playground: Playground) -> None:
    assert resolve(Kind(modules=(), environment=None)).origin == "core"


def test_the_environment_where_it_has_not(playground: Playground, forged: Any) -> None:
    playground.define("e")
    folder = forged("e")
    add_module(folder, "no_such_engine", "3.1")
    add_module(folder, "numpy", "9.9")
    found = resolve(Kind())
    assert (found.path, found.origin) == (str(folder / "bin" / "python"), "environment")
    assert found.versions | {"python": ""} == {"python": "", "no-such-engine": "3.1", "numpy": "9.9"}


def test_the_given_one_before_all(playground: Playground, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = str(other / "bin" / "python")
    found = resolve(HERE, python)
    assert (found.path, found.origin, found.versions["numpy"]) == (python, "given", "9.9")
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
    assert refusal(Kind(), python) == (
        f"{python} (python of the kind 'engine') lacks no_such_engine: install it there, or leave `python` out and "
        "run: awqbench env create e"
    )
    assert refusal(Kind(environment=None), python).endswith("lacks no_such_engine: install it there")
    bare = tmp_path / "bare"
    venv.create(bare, symlinks=True)
    assert f"lacks {WORKER_MODULES[0]}" in refusal(Kind(modules=("json",)), str(bare / "bin" / "python"))
    assert refusal(Kind(), "./none/python").endswith("there is no such interpreter")
    assert "is no Python interpreter: exit status 1" in refusal(Kind(), "/bin/false")
    text = tmp_path / "text"
    text.write_text("no program")
    assert "is no Python interpreter: Permission denied" in refusal(Kind(), str(text))


def test_what_is_said_where_the_environment_is_not_ready(playground: Playground, forged: Any) -> None:
    playground.define("e")
    lacks = "the kind 'engine' needs no_such_engine, which this Python lacks"
    assert refusal(Kind()) == f"{lacks}; run: awqbench env create e"
    (playground.place / "e").mkdir()
    interrupted = "(the environment is incomplete: making it was interrupted)"
    assert refusal(Kind()) == f"{lacks} {interrupted}; run: awqbench env create e"
    (playground.place / "e").rmdir()
    folder = forged("e")
    assert refusal(Kind()) == "the environment e lacks no_such_engine, numpy; run: awqbench env create e --force"
    playground.define("e", "something==1.0\n")
    assert "(the environment is outdated: its requirements have changed since)" in refusal(Kind())
    assert folder.exists()


def test_a_kind_whose_environment_nobody_defines(playground: Playground) -> None:
    for kind in (Kind(environment=None), Kind(environment="plugin")):
        assert refusal(kind).endswith("install it beside awqbench, or give the backend a `python` that has it")


def test_nothing_is_imported(playground: Playground, other: Path, tmp_path: Path) -> None:
    add_module(other, "no_such_engine")
    site = next((other / "lib").glob("python*/site-packages"))
    (site / "no_such_engine.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    resolve(Kind(), str(other / "bin" / "python"))
    assert not (tmp_path / "imported").exists()
    assert not environments.definitions()
