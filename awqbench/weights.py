"""What each backend runs: a checkpoint to be made, one that is there, a GGUF file to be exported, the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqbench.backends.registry import kind
from awqbench.errors import UserError
from awqbench.executors.request import check_settings
from awqbench.fingerprint import file_hash, folder_hash, gguf_hash, model_hash
from awqbench.formats.config import read_config
from awqbench.job import Job, Role
from awqbench.ops import cpu, cuda_build
from awqbench.record.files import content_key
from awqbench.resources import content
from awqbench.sources.documents import resolve_documents
from awqbench.spec import BackendSpec, RunSpec


@dataclass(frozen=True, slots=True)
class Weights:
    """The hash of a backend's weights and of what multiplies them, and the jobs that bring them about."""

    key: str
    needs: tuple[str, ...] = ()


def weights_of(
    spec: RunSpec, name: str, shared: Mapping[str, Any], data: dict[str, str], known: Mapping[str, Weights]
) -> tuple[list[Job], Weights]:
    """The jobs that make a backend's weights, if any must be made, and what they will be.

    `known` holds the weights of backends before it; what is read is added to `data` with its hash. Raises UserError for
    weights, settings or texts that are not there.
    """
    backend = spec.backends[name]
    what = kind(backend.kind).weights
    if what == "made":
        return _made(spec, name, backend, shared, data)
    if what == "server":
        return [], Weights(content_key(["server", backend.options]))
    if backend.checkpoint:
        path = Path(backend.checkpoint)
        if what == "gguf" and path.is_file():
            return [], Weights(gguf_hash(path))
        if what == "gguf" and not path.is_dir():
            raise UserError(f"backends.{name}.checkpoint: no file or folder at {path}")
        source = Weights(_folder_key(name, path))
    else:
        source = known[backend.weights] if backend.weights else Weights("reference")
    if what != "gguf":
        return [], source
    form = backend.options.get("gguf", "blocks")
    job = gguf_job(f"gguf/{name}", name, spec.role_of(name), [source.key, shared["model"], form], source.needs)
    return [job], Weights(job.key, (job.id,))


def gguf_job(identity: str, backend: str, role: Role, inputs: list[Any], needs: tuple[str, ...]) -> Job:
    """The job that exports a folder as a GGUF file."""
    sources = folder_hash(Path(__file__).parent / "formats" / "gguf")
    return Job(identity, "gguf", backend, None, role, content_key(["gguf", inputs, sources]), needs)


def _folder_key(name: str, path: Path) -> str:
    if not path.is_dir():
        raise UserError(f"backends.{name}.checkpoint: no folder at {path}")
    if not (path / "config.json").is_file():
        raise UserError(f"backends.{name}.checkpoint: {path} is no checkpoint, it has no config.json")
    return content_key([model_hash(path)])


def _made(
    spec: RunSpec, name: str, backend: BackendSpec, shared: Mapping[str, Any], data: dict[str, str]
) -> tuple[list[Job], Weights]:
    """A checkpoint of this package's own making, or one that its kernels read."""
    if backend.checkpoint:
        if not Path(backend.checkpoint).is_dir():
            raise UserError(f"backends.{name}.checkpoint: no folder at {backend.checkpoint}")
        # A folder that is no checkpoint must not wait for its cell.
        read_config(Path(backend.checkpoint), to_multiply=True)
        return [], Weights(content_key([model_hash(Path(backend.checkpoint)), kernel_identity(shared["device"])]))
    settings = spec.quantize_for(name)
    check_settings(settings)
    recipe: dict[str, Any] = {**shared, "quantize": settings.model_dump(exclude={"max_memory", "workers"})}
    documents = resolve_documents(settings.calibration, settings.text_field)
    recipe["calibration"] = data[settings.calibration] = documents.sha256
    if settings.overrides:
        recipe["overrides"] = data[settings.overrides] = file_hash(Path(settings.overrides))
    key = content_key(recipe)
    job = Job(f"checkpoint/{name}", "checkpoint", name, None, spec.role_of(name), key)
    return [job], Weights(content_key([key, kernel_identity(shared["device"])]), (job.id,))


def kernel_identity(device: str) -> list[str | None]:
    """What multiplies packed weights here: the kernels' sources, and whether they can be built."""
    on_cpu = [folder_hash(content("kernels") / "cpu"), cpu.unavailable()]
    return [*on_cpu, cuda_build.identity()] if device.startswith("cuda") else on_cpu
