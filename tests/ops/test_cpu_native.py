"""The check program of kernels/cpu, built for this processor and, where the tools are, for an emulated ARM one."""

import platform
import re
import shutil
import subprocess

import pytest

from awqbench.ops import build
from awqbench.resources import content

FOLDER = content("kernels") / "cpu"
SOURCES = [*sorted(FOLDER.glob("*.cpp")), FOLDER / "check" / "main.cpp"]


def check(compiler, program, *flags, emulator=()):
    """What the check says of each instruction set: cases and how many were wrong."""
    subprocess.run([compiler, *build.FLAGS, "-O1", *flags, *map(str, SOURCES), "-o", str(program)], check=True)
    done = subprocess.run([*emulator, str(program)], capture_output=True, text=True)
    print(done.stdout, done.stderr)
    found = re.findall(r"^(\w+): (\d+) cases, (\d+) wrong", done.stdout, re.MULTILINE)
    assert done.returncode == any(wrong != "0" for _, _, wrong in found)
    return {name: (int(cases), int(wrong)) for name, cases, wrong in found}


@pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
@pytest.mark.slow
def test_this_processor(tmp_path):
    found = check(build.compiler(), tmp_path / "check")
    assert found["scalar"] == (2508, 0)
    assert set(found.values()) == {(2508, 0)}
    assert ("neon" in found) == (platform.machine() in ("aarch64", "arm64"))


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="no cross compiler or emulator (apt-get install g++-aarch64-linux-gnu qemu-user)",
)
@pytest.mark.slow
def test_an_emulated_arm_processor(tmp_path):
    found = check("aarch64-linux-gnu-g++", tmp_path / "check", "-static", emulator=["qemu-aarch64"])
    assert found == {"scalar": (2508, 0), "neon": (2508, 0)}


@pytest.mark.skipif(shutil.which("clang++") is None, reason="no clang++")
@pytest.mark.slow
def test_clang_compiles_it(tmp_path):
    assert set(check(shutil.which("clang++"), tmp_path / "check").values()) == {(2508, 0)}
