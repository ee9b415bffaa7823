"""Compile the CUDA kernels (kernels/cuda) into one fat binary, on first use or ahead of time.

    python -m awqbench.ops.cuda_build --out FILE.so

builds without a GPU; AWQBENCH_CUDA_KERNELS=FILE.so then uses it on a machine that need not have nvcc.
AWQBENCH_CUDA_ARCHITECTURES=90a builds for Hopper alone, in half the time.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from awqbench.cache import cache_dir
from awqbench.cores import usable_cores
from awqbench.errors import BackendUnavailable, UserError
from awqbench.ops.build import cached, digest, last_line
from awqbench.resources import content

log = logging.getLogger(__name__)

OVERRIDE = "AWQBENCH_CUDA_KERNELS"
VERSION = 2  # kAwqbenchCudaVersion of kernels/cuda/w4a16.h
# Compute capability -> the first nvcc that compiles for it. Newer devices run the PTX.
ARCHITECTURES = {"80": (11, 0), "90a": (12, 0), "120": (12, 8)}
PTX = "80"
CHOSEN = "AWQBENCH_CUDA_ARCHITECTURES"  # of these alone, by commas, and no PTX
# Hidden symbols: those of the static CUDA runtime must not be replaced by the runtime that torch has loaded.
# Compressed and without line numbers: 4 MB instead of 40.
FLAGS = ("-std=c++17", "-O3", "-Xptxas", "-v", "-Xfatbin=-compress-all", "-Xcompiler", "-fPIC,-fvisibility=hidden")
# nvcc reads these itself: NVCC_APPEND_FLAGS=-lineinfo for a profiler's view of the source.
OWN_FLAGS = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
LINK_FLAGS = ("-shared", "-cudart", "static", "-Xlinker", "--exclude-libs=ALL")
BUILD = "python -m awqbench.ops.cuda_build --out FILE.so"
HINT = "install the CUDA toolkit, or: pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm"


@dataclass(frozen=True, slots=True)
class Resources:
    """What one kernel takes on one architecture, as the compiler reports it; memory in bytes per thread or block."""

    source: str
    kernel: str
    architecture: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int


def nvcc() -> str | None:
    """The path of nvcc: of CUDA_HOME or CUDA_PATH, on PATH, in /usr/local/cuda, in NVIDIA's wheels; or None."""
    homes = [Path(home) / "bin" for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    wheels = importlib.util.find_spec("nvidia")
    packaged = [
        folder
        for place in (wheels.submodule_search_locations if wheels else None) or ()
        for folder in sorted(Path(place).glob("*/bin"), reverse=True)
    ]
    for folder in (*homes, None, Path("/usr/local/cuda/bin"), *packaged):
        if found := shutil.which("nvcc", path=None if folder is None else str(folder)):
            return found
    return None


def version_of(program: str) -> tuple[int, int]:
    """The release of an nvcc, as in (13, 0). Raises BackendUnavailable when it doesn't tell."""
    try:
        said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendUnavailable(f"{program} does not run: {error}; {HINT}") from None
    found = re.search(r"release (\d+)\.(\d+)", said)
    if found is None:
        raise BackendUnavailable(f"{program} --version names no release; {HINT}")
    return int(found[1]), int(found[2])


def targets(version: tuple[int, int]) -> list[str]:
    """nvcc's options for machine code of the architectures this version knows, and PTX for others.

    Of AWQBENCH_CUDA_ARCHITECTURES alone where it is set; raises BackendUnavailable for one that is not known.
    """
    known = [name for name, since in ARCHITECTURES.items() if version >= since]
    chosen = [name.strip() for name in os.environ.get(CHOSEN, "").split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in known]:
        raise BackendUnavailable(f"{CHOSEN}: {unknown[0]!r} (allowed with this nvcc: {', '.join(known)})")
    code = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in chosen or known]
    return code if chosen else [*code, f"-gencode=arch=compute_{PTX},code=compute_{PTX}"]


def sources() -> list[Path]:
    """The files that make the library: *.cu, then the headers they include."""
    folder = content("kernels") / "cuda"
    return [*sorted(folder.glob("*.cu")), *sorted(folder.glob("*.h")), *sorted(folder.glob("*.cuh"))]


@cache
def _located() -> tuple[ctypes.CDLL, Path]:
    if given := os.environ.get(OVERRIDE):
        try:
            return _checked(ctypes.CDLL(given), given), Path(given)
        except OSError as error:
            raise BackendUnavailable(f"{OVERRIDE}: {error}") from None
    program = nvcc()
    if program is None:
        raise BackendUnavailable(
            f"no nvcc for the CUDA kernels ({HINT}; or set {OVERRIDE} to a library built elsewhere)"
        )
    try:
        name = _name(version_of(program))
        return cached(name, lambda built: compile_library(program, built)), cache_dir("kernels") / name
    except (OSError, UserError) as error:
        raise BackendUnavailable(f"the CUDA kernels cannot be built: {error}") from None


def _name(version: tuple[int, int]) -> str:
    recipe = FLAGS, LINK_FLAGS, targets(version), version, [os.environ.get(name) for name in OWN_FLAGS]
    return f"w4a16-cuda-{digest(recipe, sources())}.so"


def identity() -> str:
    """A hash of what `library()` would load, sources and compiler or the file given, or why none. Builds nothing.

    What was measured with one kernel says nothing of another, so a result's key depends on it.
    """
    try:
        if given := os.environ.get(OVERRIDE):
            return digest(OVERRIDE, [Path(given)])
        program = nvcc()
        return "no nvcc" if program is None else _name(version_of(program))
    except (BackendUnavailable, OSError) as error:
        return str(error)


def library() -> ctypes.CDLL:
    """The kernels: of AWQBENCH_CUDA_KERNELS, of the cache, or built. Raises BackendUnavailable with the reason."""
    return _located()[0]


def library_path() -> Path:
    """The file of `library()`."""
    return _located()[1]


def resources() -> list[Resources]:
    """The compiler's report on `library()`. Empty when the file came without its .json."""
    report = _report_of(library_path())
    return [Resources(**entry) for entry in json.loads(report.read_text())["kernels"]] if report.is_file() else []


def _report_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _checked(loaded: ctypes.CDLL, path: str | Path) -> ctypes.CDLL:
    try:
        found = int(loaded.awqbench_cuda_version())
    except AttributeError:
        raise BackendUnavailable(f"{path} is no library of awqbench's CUDA kernels") from None
    if found != VERSION:
        raise BackendUnavailable(f"{path} has interface {found}, this awqbench wants {VERSION}: build it again")
    return loaded


def compile_library(program: str, built: Path) -> ctypes.CDLL:
    """Compile all sources to `built` and the compiler's report beside it, then load it. Needs no GPU."""
    version = version_of(program)
    files = [file for file in sources() if file.suffix == ".cu"]
    processors = usable_cores()
    threads = str(max(1, processors // len(files)))  # of one nvcc: it compiles the architectures in parallel

    def compile_one(file: Path) -> tuple[Path, str]:
        made = built.with_name(f"{file.stem}.o")
        command = [program, *FLAGS, *targets(version), "--threads", threads, "-c", str(file), "-o", str(made)]
        return made, subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800).stderr

    try:
        with ThreadPoolExecutor(min(processors, len(files))) as pool:
            made = list(pool.map(compile_one, files))
        search = [f"-L{folder}" for name in ("lib64", "lib") if (folder := _root(program) / name).is_dir()]
        link = [program, *LINK_FLAGS, *search, *(str(path) for path, _ in made), "-o", str(built)]
        subprocess.run(link, check=True, capture_output=True, text=True, timeout=600)
    except subprocess.SubprocessError as error:
        raise BackendUnavailable(f"{program} cannot build the CUDA kernels: {_first_error(error)}") from None
    kernels = [
        entry
        for file, (_, said) in zip(files, made, strict=True)
        for entry in parse_report(said.splitlines(), file.name)
    ]
    report = {"nvcc": ".".join(map(str, version)), "kernels": [asdict(entry) for entry in kernels]}
    _report_of(built).write_text(json.dumps(report, indent=1) + "\n")
    log.info("built %s with %s", built.name, program)
    return _checked(ctypes.CDLL(str(built)), built)


def _root(program: str) -> Path:
    return Path(program).resolve().parent.parent


def _first_error(error: subprocess.SubprocessError) -> str:
    lines = str(getattr(error, "stderr", None) or "").splitlines()
    return next((line for line in lines if "error" in line), last_line(error))


def parse_report(lines: Iterable[str], source: str) -> list[Resources]:
    """What `ptxas -v` says of each kernel."""
    found: list[Resources] = []
    kernel = architecture = ""
    stack = (0, 0, 0)
    for line in lines:
        if match := re.search(r"Compiling entry function '(\S+)' for 'sm_(\w+)'", line):
            kernel, architecture = match[1], match[2]
            stack = (0, 0, 0)
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack = (int(match[1]), int(match[2]), int(match[3]))
        elif (match := re.search(r"Used (\d+) registers", line)) and kernel:
            shared = re.search(r"(\d+) bytes smem", line)
            found.append(
                Resources(source, kernel, architecture, int(match[1]), int(shared[1]) if shared else 0, *stack)
            )
            kernel = ""
    names = _plain([entry.kernel for entry in found])
    return [Resources(**{**asdict(entry), "kernel": name}) for entry, name in zip(found, names, strict=True)]


def _plain(names: list[str]) -> list[str]:
    """C++ names without their mangling where c++filt is there, short of namespaces and parameters."""
    program = shutil.which("c++filt")
    if program is None or not names:
        return names
    said = subprocess.run([program], input="\n".join(names), capture_output=True, text=True, check=False, timeout=60)
    plain = said.stdout.splitlines()
    if len(plain) != len(names):
        return names
    return [_short(name) for name in plain]


def _short(name: str) -> str:
    """Without namespaces, casts of template arguments, return type and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|awqbench::|^void ", "", name)
    name = re.sub(r"\(\w+\)(?=-?\w)", "", name)
    depth = 0
    for at, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return name[:at]
    return name


def main(arguments: list[str] | None = None) -> int:
    """Build ahead of time; prints what each kernel takes."""
    parser = argparse.ArgumentParser(
        prog="python -m awqbench.ops.cuda_build", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="the library to write; its report goes to OUT.json")
    out: Path = parser.parse_args(arguments).out.absolute()
    try:
        program = nvcc()
        if program is None:
            raise BackendUnavailable(f"no nvcc ({HINT})")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
            built = Path(scratch) / out.name
            compile_library(program, built)
            os.replace(_report_of(built), _report_of(out))
            os.replace(built, out)
    except (BackendUnavailable, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for entry in json.loads(_report_of(out).read_text())["kernels"]:
        print(
            f"sm_{entry['architecture']:<4} {entry['registers']:>3} registers {entry['shared']:>6} B shared "
            f"{entry['stack'] + entry['spill_stores'] + entry['spill_loads']:>4} B stack and spills  {entry['kernel']}"
        )
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
