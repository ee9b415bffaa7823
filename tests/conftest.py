"""Shared fixtures: a real tiny model, a data folder where there is one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

MadeOnce = Callable[[str, Callable[[Path], object]], Path]

_LLAMACPP = """
import sys, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.n_ctx, parameters.n_parallel, parameters.port = sys.argv[1], 512, 2, 0
parameters.hostnames, parameters.cpuparams.n_threads = ["127.0.0.1"], 1
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: begun last, one of them would be all that is left to do for the other processes."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def of_all_processes(factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that the processes of one test run have in common."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """The file or folder of a name, made by the first of all processes that asks; the others wait for it."""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        place = of_all_processes(tmp_path_factory) / name
        with place.with_name(f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                unfinished = place.with_name(f"unfinished-{name}")
                make(unfinished)
                unfinished.rename(place)
        return place

    return made


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test run makes what it needs anew, once; where the demo model is converted already, CI may point there."""
    if "AWQBENCH_CACHE" in os.environ:
        yield
        return
    os.environ["AWQBENCH_CACHE"] = str(of_all_processes(tmp_path_factory) / "awqbench-cache")
    yield
    del os.environ["AWQBENCH_CACHE"]


@pytest.fixture(scope="session")
def tiny_llama(made_once: MadeOnce) -> Path:
    """A folder with a random byte-level Llama: 2 layers, hidden 64, ffn 128. It is the same for all processes."""
    from awqbench.sources.tiny import make_tiny

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    return made_once("tiny", lambda folder: make_tiny(folder / "model", **sizes)) / "model"


@pytest.fixture(scope="session")
def simulated_kernels(made_once: MadeOnce) -> Path:
    """The CUDA kernels' C interface over a simulator on the CPU, as a library; skipped without a C++ compiler."""
    from awqbench.ops import build
    from awqbench.resources import content

    compiler = build.compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
    command = [compiler, *flags, content("kernels") / "host" / "library.cpp", "-o"]
    return made_once("simulated.so", lambda built: subprocess.run([*command, built], check=True))


@pytest.fixture
def gpu(simulated_kernels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors of the CPU pass for those of a device, whose library is the simulator's."""
    import torch

    from awqbench.ops import attend_binding, cuda_binding, cuda_build, cuda_fused, cuda_interface
    from awqbench.ops.cuda_workspace import Workspaces

    workspaces = Workspaces(lambda size: torch.zeros(size, dtype=torch.uint8), lambda: False, lambda: None)
    monkeypatch.setenv(cuda_build.OVERRIDE, str(simulated_kernels))
    monkeypatch.setattr(cuda_build, "_located", cuda_build._located.__wrapped__)
    monkeypatch.setattr(cuda_binding, "_workspaces", lambda index: workspaces)
    monkeypatch.setattr(cuda_binding, "current_stream", lambda index: 0)
    monkeypatch.setattr("torch.cuda.current_device", lambda: -1)  # as get_device() says of a CPU
    kept = (
        cuda_interface.functions, cuda_binding._workspace_bytes, cuda_fused.takes_in, attend_binding.workspace_bytes,
    )  # fmt: skip
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of local data sets; tests that need it are skipped by name where it is not set."""
    folder = os.environ.get("AWQBENCH_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("AWQBENCH_DATA is not set: no local data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def make_quantized() -> Callable[..., Any]:
    """Random integers of a linear [out, inputs]; the same arguments give the same integers."""

    import torch

    from awqbench.quantization.tensor import QuantizedTensor

    def make(out: int, inputs: int, group_size: int, bits: int = 4, seed: int = 0) -> QuantizedTensor:
        generator = torch.Generator().manual_seed(seed)
        groups = inputs // group_size
        return QuantizedTensor(
            codes=torch.randint(0, 2**bits, (out, inputs), generator=generator, dtype=torch.uint8),
            scales=(torch.rand(out, groups, generator=generator) * 0.02 + 1e-3).half(),
            zeros=torch.randint(0, 2**bits, (out, groups), generator=generator, dtype=torch.uint8),
            bits=bits,
            group_size=group_size,
        )

    return make


@pytest.fixture(scope="session")
def serve_gguf() -> Callable[[Path], AbstractContextManager[str]]:
    """Run llama.cpp's own server on a file, in a process of its own, with two slots of 256 tokens: its base_url."""
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: no llama.cpp server to ask")

    @contextmanager
    def serve(file: Path) -> Iterator[str]:
        command = [sys.executable, "-P", "-c", _LLAMACPP, str(file)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http"), "the server did not start"
            yield f"{address}/v1"
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    return serve


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Leave torch's thread count as it was."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plugin_folder() -> Path:
    """An installed plugin, for PYTHONPATH: the backend kind `trouble`, which fails on demand."""
    return Path(__file__).resolve().parent / "plugins" / "trouble"
