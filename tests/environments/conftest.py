"""Environments of the test's own: definitions in a temporary folder, a local wheel, and a place to make them in."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from awqbench import environments
from awqbench.environments import catalog as defined
from awqbench.environments import making
from awqbench.environments.catalog import Recipe
from awqbench.environments.installers import Step


@dataclass(frozen=True, slots=True)
class Playground:
    """`suites` holds the definitions, `place` the environments, `wheels` what can be installed."""

    suites: Path
    place: Path
    wheels: Path

    def define(self, name: str, requirements: str = "", modules: str = '["json"]', more: str = "") -> None:
        """Add or replace an environment; `more` is TOML for its table."""
        (self.suites / f"{name}.txt").write_text(requirements)
        table = f'[{name}]\nsummary = "a test"\nkinds = ["{name}"]\nmodules = {modules}\n{more}\n'
        (self.suites / f"{name}.toml").write_text(table)
        whole = "".join(path.read_text() for path in sorted(self.suites.glob("*.toml")) if path.stem != "environments")
        (self.suites / "environments.toml").write_text(whole)

    def wheel(self, name: str, version: str = "1.0", requires: str = "", code: str = "") -> None:
        """Make the wheel of a package with one module."""
        info = f"{name}-{version}.dist-info"
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        with zipfile.ZipFile(self.wheels / f"{name}-{version}-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{name}.py", code)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/top_level.txt", f"{name}\n")
            archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Playground:
    """Nothing of this machine's environments, and no package index."""
    made = Playground(tmp_path / "suites" / "environments", tmp_path / "made", tmp_path / "wheels")
    made.suites.mkdir(parents=True)
    made.wheels.mkdir()
    (made.suites / "environments.toml").write_text("")
    monkeypatch.setattr(defined, "content", lambda folder: tmp_path / folder)
    monkeypatch.setenv("AWQBENCH_ENVIRONMENTS", str(made.place))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.wheels))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return made


@pytest.fixture
def forged(playground: Playground) -> Callable[[str], Path]:
    """Make an environment without pip, as if it had been created: fast, with a real interpreter and a marker."""
    import venv

    from awqbench.environments.interpreter import look
    from awqbench.environments.places import Made, write_marker

    def make(name: str) -> Path:
        found = environments.definition(name)
        recipe = found.recipe()
        folder = playground.place / name
        venv.create(folder, symlinks=True)
        answer = look(str(folder / "bin" / "python"), found.modules)
        made = Made(
            name, recipe.variant, recipe.digest, answer.python, "pip", {}, [], 1, 0.1, "2026-01-01T00:00:00+00:00"
        )
        write_marker(folder, made)
        return folder

    return make


@pytest.fixture
def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make environments that need nothing installed, without the seconds that pip's own installation takes."""

    def bare(recipe: Recipe, folder: Path, base: str, installer: str) -> list[Step]:
        assert not recipe.requirements
        return [Step("virtual environment", (base, "-m", "venv", "--without-pip", str(folder)))]

    monkeypatch.setattr(making, "steps", bare)
