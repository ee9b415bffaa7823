"""Compile the C++ kernel on first use; what building native code has in common: a per-user cache named by content."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
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


def digest(recipe: object, files: Iterable[Path]) -> str:
    """16 hexadecimal digits that change with the recipe's repr and with the files' names and bytes."""
    hashed = hashlib.sha256(repr(recipe).encode())
    for file in files:
        hashed.update(file.name.encode() + file.read_bytes())
    return hashed.hexdigest()[:16]


def cached(name: str, make: Callable[[Path], ctypes.CDLL]) -> ctypes.CDLL:
    """The library `name` of the cache; where it is absent or broken, what `make` builds at a given path and loads.

    Files that `make` leaves beside the library, named `name` and a suffix, are kept with it.
    """
    target = cache_dir("kernels") / name
    if target.is_file():
        try:
            return ctypes.CDLL(str(target))
        except OSError as error:
            log.info("rebuilding %s: %s", target, error)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        library = make(Path(scratch) / name)
        for beside in Path(scratch).glob(f"{name}.*"):
            os.replace(beside, target.parent / beside.name)
        os.replace(Path(scratch) / name, target)  # atomic: another process sees the whole file or none
    return library


def last_line(error: subprocess.SubprocessError) -> str:
    """What a compiler said last: its error, or how it ended."""
    text = (getattr(error, "stderr", None) or str(error)).strip()
    return (text.splitlines() or ["no message"])[-1]


@cache
def library() -> ctypes.CDLL:
    """The compiled kernel, built if the cache lacks it. Raises BackendUnavailable with the reason when it can't be."""
    folder = content("kernels") / "cpu"
    sources = sorted(folder.glob("*.cpp"))
    try:
        key = digest((FLAGS, THREADING, platform.machine()), (*sources, *sorted(folder.glob("*.h"))))
        return cached(f"w4a16-cpu-{key}.so", lambda built: _build(sources, built))
    except (OSError, UserError) as error:
        raise BackendUnavailable(f"the CPU kernel cannot be built: {error}") from None


def _build(sources: list[Path], built: Path) -> ctypes.CDLL:
    program = compiler()
    if program is None:
        raise BackendUnavailable("no C++ compiler for the CPU kernel (install one: apt-get install g++)")
    problem = ""
    for compile_flags, link_flags in THREADING:
        objects = [str(built.with_name(f"{source.stem}.o")) for source in sources]
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
            problem = last_line(error)
        except OSError as error:  # a missing OpenMP symbol
            problem = str(error)
        else:
            log.info("built %s with %s %s", built.name, program, " ".join(compile_flags))
            return library
    raise BackendUnavailable(f"the C++ compiler {program} cannot build the CPU kernel: {problem}")
