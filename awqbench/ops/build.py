"""Compile the C++ kernel on first use into a per-user cache, named by the hash of all that goes into it."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from awqbench.cache import cache_dir
from awqbench.errors import BackendUnavailable, UserError
from awqbench.resources import content

log = logging.getLogger(__name__)

FLAGS = ("-std=c++17", "-O3", "-fPIC", "-w")
# Tried in order. The first links no OpenMP runtime: its symbols resolve to the one torch has loaded, since two runtimes
# in one process would spin against each other. The last is for compilers without OpenMP: right, but one thread.
THREADING = ((("-fopenmp",), ()), (("-fopenmp",), ("-fopenmp",)), ((), ()))


def compiler() -> str | None:
    """The path of the system's C++ compiler, or None."""
    return next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)


@cache
def library() -> ctypes.CDLL:
    """The compiled kernel, built if the cache lacks it. Raises BackendUnavailable with the reason when it can't be."""
    folder = content("kernels") / "cpu"
    sources = sorted(folder.glob("*.cpp"))
    digest = hashlib.sha256(repr((FLAGS, THREADING, platform.machine())).encode())
    for file in (*sources, *sorted(folder.glob("*.h"))):
        digest.update(file.name.encode() + file.read_bytes())
    try:
        target = cache_dir("kernels") / f"w4a16-cpu-{digest.hexdigest()[:16]}.so"
        if target.is_file():
            try:
                return ctypes.CDLL(str(target))
            except OSError as error:
                log.info("rebuilding %s: %s", target, error)
        program = compiler()
        if program is None:
            raise BackendUnavailable("no C++ compiler for the CPU kernel (install one: apt-get install g++)")
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            return _build(program, sources, Path(scratch), target)
    except (OSError, UserError) as error:
        raise BackendUnavailable(f"the CPU kernel cannot be built: {error}") from None


def _build(program: str, sources: list[Path], scratch: Path, target: Path) -> ctypes.CDLL:
    problem = ""
    for compile_flags, link_flags in THREADING:
        built = scratch / target.name
        objects = [str(scratch / f"{source.stem}.o") for source in sources]
        commands = [
            [program, *FLAGS, *compile_flags, "-c", str(source), "-o", made]
            for source, made in zip(sources, objects, strict=True)
        ]
        commands.append([program, "-shared", *link_flags, *objects, "-o", str(built)])
        try:
            for command in commands:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            library = ctypes.CDLL(str(built))
        except subprocess.SubprocessError as error:
            problem = (getattr(error, "stderr", None) or str(error)).strip()
        except OSError as error:  # a missing OpenMP symbol
            problem = str(error)
        else:
            os.replace(built, target)  # atomic: another process sees the whole file or none
            log.info("built %s with %s %s", target, program, " ".join(compile_flags))
            return library
    reason = (problem.splitlines() or ["no message"])[-1]
    raise BackendUnavailable(f"the C++ compiler {program} cannot build the CPU kernel: {reason}")
