"""The doctor finds what is missing, and runs where it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

import awqbench
from awqbench import doctor, environments
from awqbench.backends import registry
from awqbench.backends.kind import Kind
from awqbench.doctor import Check, diagnose
from awqbench.errors import BackendUnavailable
from awqbench.ops import build, cuda_build


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("AWQBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("AWQBENCH_DATA", raising=False)


def by_name() -> dict[str, Check]:
    return {check.name: check for check in diagnose()}


def test_every_area_is_answered_and_what_is_missing_has_a_hint() -> None:
    found = by_name()
    assert {
        "python",
        "packages",
        "torch",
        "c++ compiler",
        "gpu",
        "cuda",
        "nvcc",
        "cuda kernels",
        "demo model",
        "demo text",
    } <= set(found)
    assert {"hugging face hub", "local data", "content: kernels", "content: suites", "content: reports", "disk"} <= set(
        found
    )
    assert found["python"].status == "ok"
    assert found["torch"].status == "ok"
    assert found["hugging face hub"].message == "not used: HF_HUB_OFFLINE is set"
    assert all(check.hint for check in found.values() if check.status == "missing")
    json.dumps([asdict(check) for check in found.values()])


def test_a_folder_of_data_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWQBENCH_DATA", str(tmp_path / "gone"))
    assert by_name()["local data"].status == "missing"


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", sys.executable)  # which the kernels' build does not ask either
    monkeypatch.setattr(cuda_build, "nvcc", lambda: None)
    found = by_name()
    assert build.compiler() is None
    assert found["c++ compiler"].status == "warn"
    assert found["nvcc"].status == "warn"


def test_nvcc_is_found_where_the_build_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "cuda" / "bin" / "nvcc"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.48\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.delenv(cuda_build.OVERRIDE, raising=False)
    found = {check.name: check for check in doctor._cuda_kernels()}
    assert (found["nvcc"].status, found["nvcc"].message) == ("ok", str(program))
    assert found["cuda kernels"].message == f"compiled by {program} 13.0 when first used on a GPU"


def test_a_library_of_kernels_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda_build, "_located", cuda_build._located.__wrapped__)
    monkeypatch.setenv(cuda_build.OVERRIDE, str(tmp_path / "gone.so"))
    found = by_name()["cuda kernels"]
    assert found.status == "warn"
    assert "gone.so" in found.message
    assert "--out" in found.hint


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Lets a test install plugins: what is installed is read once."""
    registry.kinds.cache_clear()
    yield monkeypatch
    registry.kinds.cache_clear()


def backends() -> dict[str, Check]:
    return {check.name.removeprefix("backend "): check for check in doctor._backends()}


def test_backend_kinds_are_listed_with_those_of_plugins(installed: pytest.MonkeyPatch, plugin_folder: Path) -> None:
    installed.syspath_prepend(str(plugin_folder))
    found = backends()
    assert {"reference", "awq", "rtn", "trouble"} <= set(found)
    assert found["reference"].status == "ok"
    assert "transformers 5." in found["reference"].message
    assert "plugin awqbench_trouble.engine:Trouble" in found["trouble"].message


def test_a_backend_that_cannot_run_is_a_note_with_its_command(installed: pytest.MonkeyPatch) -> None:
    def missing(kind: Kind, python: str | None) -> environments.Interpreter:
        raise BackendUnavailable(f"{kind.name} needs torch: awqbench env create torch")

    installed.setattr(environments, "resolve", missing)
    found = backends()["awq"]
    assert found.status == "warn"
    assert found.hint == "awqbench env create torch"


def test_a_broken_plugin_is_named(installed: pytest.MonkeyPatch, plugin_folder: Path, tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[awqbench.backends]\nbroken = no_such_module:KIND\n")
    installed.syspath_prepend(str(tmp_path))
    (found,) = doctor._backends()
    assert found.status == "missing"
    assert "no_such_module" in found.message


def test_a_check_that_breaks_is_a_finding_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def _disk() -> Iterator[Check]:
        raise OSError("no such device")

    monkeypatch.setattr(doctor, "_disk", _disk)
    assert by_name()["disk"] == Check("disk", "missing", "OSError: no such device")


def test_it_runs_on_the_standard_library_alone() -> None:
    # -S leaves site-packages out: pydantic, torch, psutil and the rest are absent.
    package = Path(awqbench.__file__).resolve().parent
    script = f"""
import sys, types, json, dataclasses
package = types.ModuleType("awqbench"); package.__path__ = [{str(package)!r}]; sys.modules["awqbench"] = package
from awqbench.doctor import diagnose
print(json.dumps([dataclasses.asdict(check) for check in diagnose()]))
"""
    done = subprocess.run([sys.executable, "-S", "-I", "-c", script], capture_output=True, text=True, check=True)
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert found["packages"]["status"] == "missing"
    assert "pydantic" in found["packages"]["message"]
    assert "lm-eval" in found["packages"]["message"]
    assert found["packages"]["hint"].startswith("pip install ")
    assert found["torch"]["status"] == "missing"
    assert found["demo text"]["status"] == "warn"


def test_environments_by_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWQBENCH_ENVIRONMENTS", str(tmp_path / "made"))
    found = by_name()
    engines, quantizers = found["environments of engines"], found["environments of quantizers"]
    assert engines.status == quantizers.status == "ok"
    assert engines.message.startswith("missing: vllm")
    assert "autoawq" in quantizers.message
    (tmp_path / "made" / "vllm").mkdir()
    engines = by_name()["environments of engines"]
    assert (engines.status, engines.hint) == ("warn", "awqbench env create vllm")
    assert engines.message.startswith("incomplete: vllm; missing: ")
