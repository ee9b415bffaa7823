"""Programs of kernels/host, compiled once, and what feeds them cases."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest

from awqbench.ops import build
from awqbench.resources import content

Simulate = Callable[[Iterable[tuple[object, ...]]], list[str]]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A program by its name. Half of a program's time is the compiler's."""
    folder = tmp_path_factory.mktemp("host")

    @cache
    def compile_once(name: str) -> Path:
        program, source = folder / name, content("kernels") / "host" / f"{name}.cpp"
        warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
        subprocess.run([str(build.compiler()), "-std=c++17", "-O1", *warnings, source, "-o", program], check=True)
        return program

    return compile_once


@pytest.fixture(scope="session")
def simulating(compiled: Callable[[str], Path]) -> Callable[[str], Simulate]:
    """What runs cases through a program that includes product_check.h, and fails where one of them does."""

    def of(name: str) -> Simulate:
        program = compiled(name)

        def run(cases: Iterable[tuple[object, ...]]) -> list[str]:
            lines = [" ".join(map(str, case)) + "\n" for case in cases]
            done = subprocess.run([program], input="".join(lines), capture_output=True, text=True)
            wrong = [line for line in done.stdout.splitlines() if "FAIL" in line]
            assert done.returncode == 0, "\n".join([*wrong, done.stderr])
            results = done.stdout.splitlines()
            assert len(results) == len(lines)
            return results

        return run

    return of
