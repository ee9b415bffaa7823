"""Making environments for real, from local wheels and without an index."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from awqbench import environments
from awqbench.environments import making as creating
from awqbench.environments import places
from awqbench.environments.catalog import machine_variant
from awqbench.errors import UserError

from .conftest import Playground


def test_a_whole_life(playground: Playground) -> None:
    """Missing, made with every kind of step, ready, outdated, removed."""
    playground.wheel("engine", requires="gone", code="import helper\nprint('chatter')\n")
    playground.wheel("gone")
    playground.wheel("helper", requires="nowhere>=9")
    more = 'no_deps = ["helper==1.0"]\nremove = ["gone"]'
    playground.define("e", "engine==1.0\n", '["engine"]', more)
    assert environments.state("e").status == "missing"
    assert environments.interpreter_of("e") is None

    said: list[tuple[str, str]] = []
    found = environments.create("e", watch=lambda step, line: said.append((step, line)))
    assert found.status == "ready"
    assert list(dict.fromkeys(step for step, _ in said)) == [
        "virtual environment", "requirements of e.txt", "helper==1.0 without dependencies", "removing gone",
        "importing engine",
    ]  # fmt: skip
    assert any("Successfully installed" in line for _, line in said)
    assert environments.interpreter_of("e") == playground.place / "e" / "bin" / "python"
    assert found.made is not None
    marker = json.loads((playground.place / "e" / places.MARKER).read_text())
    assert {"engine": "1.0", "helper": "1.0"}.items() <= marker["packages"].items()
    assert "gone" not in marker["packages"]
    assert marker["main"] == ["engine"]
    assert found.made.versions == {"engine": "1.0"}
    assert (marker["name"], marker["variant"], marker["installer"]) == ("e", "any", "pip")
    assert marker["python"] == ".".join(map(str, sys.version_info[:3]))
    assert marker["bytes"] > 1_000_000
    assert not list(playground.place.glob(".*.replaced"))

    # A ready one is left alone, without a command being run.
    inode = (playground.place / "e").stat().st_ino
    assert environments.create("e", watch=lambda step, line: pytest.fail(step)).status == "ready"
    assert (playground.place / "e").stat().st_ino == inode

    playground.define("e", "engine==2.0\n", '["engine"]', more)
    assert environments.state("e").status == "outdated"
    assert environments.remove("e")
    assert not environments.remove("e")
    assert [path.name for path in playground.place.iterdir()] == [".e.lock"]


def test_what_goes_wrong_leaves_the_old_one_as_it_was(
    playground: Playground, forged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    playground.define("e")
    folder = forged("e")
    inode = folder.stat().st_ino
    playground.define("e", "engine==2.0\n")
    fails = creating.Step("engine", ("sh", "-c", "for i in $(seq 20); do echo line $i; done; exit 3"))
    monkeypatch.setattr(creating, "steps", lambda *_: [fails])
    with pytest.raises(environments.InstallFailed, match=r"engine: exit status 3 \(all of it: .*e\.log\)") as caught:
        environments.create("e")
    assert caught.value.tail == [f"line {number}" for number in range(9, 21)]
    assert (playground.place / "e.log").read_text().splitlines()[1:] == [f"line {i}" for i in range(1, 21)]
    assert environments.state("e").status == "outdated"
    assert folder.stat().st_ino == inode
    assert not list(playground.place.glob(".*.replaced"))


def test_where_torch_has_its_cpu_builds(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    playground.define("e")
    fails = creating.Step("e", ("sh", "-c", "echo no matching distribution for torch==2.13.0+cpu; exit 1"))
    monkeypatch.setattr(creating, "steps", lambda *_: [fails])
    with pytest.raises(environments.InstallFailed, match=r"PIP_EXTRA_INDEX_URL=https://download\.pytorch\.org/whl/cpu"):
        environments.create("e")
    fails = creating.Step("e", ("sh", "-c", "echo Processing torch-2.13.0+cpu-cp311.whl; exit 1"))
    with pytest.raises(environments.InstallFailed) as caught:
        environments.create("e")
    assert "PIP_EXTRA_INDEX_URL" not in str(caught.value)


def test_an_outdated_one_is_made_anew(playground: Playground, forged: Any, without_pip: None) -> None:
    playground.define("e")
    folder = forged("e")
    playground.define("e", more='remove = ["gone"]')
    assert environments.state("e").status == "outdated"
    (folder / "old").touch()
    assert environments.create("e").status == "ready"
    assert not (folder / "old").exists()
    assert not list(playground.place.glob(".*.replaced"))


def test_what_cannot_be_imported_is_not_ready(playground: Playground, without_pip: None) -> None:
    playground.define("e", modules='["no_such_engine", "json"]')
    with pytest.raises(environments.InstallFailed, match=r"installed and cannot import no_such_engine$") as caught:
        environments.create("e")
    assert caught.value.tail == ["no_such_engine: ModuleNotFoundError: No module named 'no_such_engine'"]
    assert environments.state("e").status == "missing"
    assert not (playground.place / "e").exists()


def test_an_interruption_ends_the_installer_and_brings_the_old_one_back(
    playground: Playground, forged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    playground.define("e")
    folder = forged("e")
    (folder / "kept").touch()

    def interrupt(step: str, line: str) -> None:
        if line:
            raise KeyboardInterrupt

    monkeypatch.setattr(creating, "steps", lambda *_: [creating.Step("slow", ("sh", "-c", "echo $$; exec sleep 600"))])
    with pytest.raises(KeyboardInterrupt):
        environments.create("e", force=True, watch=interrupt)
    process = (playground.place / "e.log").read_text().splitlines()[-1]
    assert not Path("/proc", process).exists()
    assert (folder / "kept").exists()
    assert environments.state("e").status == "ready"
    assert places.locked_by("e") is None


def test_a_variant_that_is_asked_for_replaces_another(playground: Playground, forged: Any, without_pip: None) -> None:
    playground.define("e", more="[e.cpu]\n[e.cuda]\nremove = ['x']")
    forged("e")
    here, other = ("cuda", "cpu") if machine_variant() == "cuda" else ("cpu", "cuda")
    assert environments.create("e", variant=here, watch=lambda step, line: pytest.fail(step)).recipe.variant == here
    assert environments.create("e", variant=other).recipe.variant == other
    # Whatever this machine is, the choice stays; and an equal recipe under another name is no change.
    assert environments.create("e", watch=lambda step, line: pytest.fail(step)).recipe.variant == other
    playground.define("e", more="remove = ['x']" if other == "cuda" else "")
    assert environments.state("e").status == "ready"


def test_what_a_kill_leaves_is_incomplete_and_replaced(playground: Playground, without_pip: None) -> None:
    playground.define("e")
    half = playground.place / "e"
    half.mkdir(parents=True)
    (half / "junk").touch()
    found = environments.state("e")
    assert (found.status, found.note) == ("incomplete", "making it was interrupted")
    assert environments.interpreter_of("e") is None
    (half / places.MARKER).write_text('{"name": "e"')
    assert environments.state("e").status == "incomplete"
    assert environments.create("e").status == "ready"
    assert not (half / "junk").exists()


def test_a_kill_while_one_is_replaced_costs_only_the_new_one(playground: Playground, forged: Any) -> None:
    playground.define("e")
    folder = forged("e")
    folder.rename(playground.place / ".e.replaced")
    folder.mkdir()
    assert environments.state("e").status == "incomplete"
    assert environments.create("e", watch=lambda step, line: pytest.fail(step)).status == "ready"
    assert not (playground.place / ".e.replaced").exists()


def test_a_python_that_is_gone(playground: Playground, forged: Any) -> None:
    playground.define("e")
    python = forged("e") / "bin" / "python"
    python.unlink()
    python.symlink_to(playground.place / "uninstalled")
    found = environments.state("e")
    assert (found.status, found.note) == ("incomplete", "the Python it was made with is gone")


def test_two_at_once(playground: Playground, forged: Any) -> None:
    playground.define("e")
    forged("e")
    with places.lock("e"):
        for action in (lambda: environments.create("e"), lambda: environments.remove("e")):
            with pytest.raises(UserError, match=f"being made or removed by process {os.getpid()}: wait"):
                action()
        found = environments.state("e")
        assert (found.status, found.note) == ("incomplete", f"process {os.getpid()} is making it")
    assert environments.state("e").status == "ready"


def test_a_file_system_without_locks_is_used_with_a_warning(
    playground: Playground, forged: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    playground.define("e")
    forged("e")
    monkeypatch.setattr("fcntl.flock", none)
    with places.lock("e"):
        assert "cannot be locked (No locks available)" in caplog.text
        assert environments.state("e").status == "ready"


def test_an_installer_that_outlives_its_parent_holds_the_lock(playground: Playground) -> None:
    playground.define("e")
    with places.lock("e") as held:
        child = subprocess.Popen(["sleep", "600"], pass_fds=(held,))
    try:
        with pytest.raises(UserError, match="wait for it"), places.lock("e"):
            pass
    finally:
        child.kill()
        child.wait()
    with places.lock("e"):
        pass


def test_too_little_disk(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    playground.define("e", more="bytes = 3_000_000_000")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5 * 10**9))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=re.escape("needs 6.0 GB while it is made") + ".*has 5.0 GB"):
        environments.create("e")
    assert environments.state("e").status == "missing"


def test_the_wrong_python(playground: Playground, tmp_path: Path) -> None:
    playground.define("e")
    for python, message in (
        (str(tmp_path / "none"), "no Python interpreter at"),
        ("no-such-python", "allowed: a path, or a name on the PATH"),
        ("/bin/true", "is no Python interpreter: exit status 0: it said nothing"),
    ):
        with pytest.raises(UserError, match=message):
            environments.plan("e", python=python)
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\necho \'{"python": "3.9.1", "failed": {}, "packages": {}, "provides": {}}\'\n')
    old.chmod(0o755)
    with pytest.raises(UserError, match=r"is Python 3\.9\.1: an environment needs 3\.11 or newer"):
        environments.plan("e", python=str(old))


def test_uv_installs_the_same(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    playground.wheel("engine")
    playground.wheel("gone")
    playground.define("e", "engine==1.0\ngone==1.0\n", '["engine"]', 'remove = ["gone"]')
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(playground.wheels))
    monkeypatch.setenv("UV_CACHE_DIR", str(playground.place / "cache"))
    made = environments.create("e", installer="uv").made
    assert made is not None
    assert (made.installer, made.packages) == ("uv", {"engine": "1.0"})


def test_no_uv(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    playground.define("e")
    with pytest.raises(UserError, match=r"unknown installer 'conda' \(allowed: pip, uv\)"):
        environments.plan("e", installer="conda")
    if shutil.which("uv") is None:
        with pytest.raises(UserError, match="uv is not installed"):
            environments.plan("e", installer="uv")
