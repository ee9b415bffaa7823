"""Hashes of what a measurement depends on: weights, texts, items."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
from functools import partial
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from awqbench.cache import cache_dir
from awqbench.formats.shards import weights_hash
from awqbench.record.files import content_key, stamp, write_atomic
from awqbench.sources.documents import resolve_documents
from awqbench.sources.texts import resolve_text
from awqbench.spec import (
    OF_DOCUMENTS,
    DivergenceSpec,
    FairnessSpec,
    ParitySpec,
    PerplexitySpec,
    SuiteBase,
    TasksSpec,
)

# Configuration, tokenizers, and code that trust_remote_code would run.
_COMPANIONS = {".json", ".jinja", ".model", ".txt", ".tiktoken", ".py"}


def model_hash(folder: Path) -> str:
    """sha256 over a model or checkpoint folder's weights, configuration and tokenizer.

    Weights are read once; the result is remembered by the files' names, sizes and times.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    memory = cache_dir("hashes") / content_key([[f.name, *stamp(f)] for f in files] + [str(folder.resolve())])
    if memory.is_file():
        return memory.read_text()
    small = [file for file in files if file.suffix in _COMPANIONS and file.name != "quantize.json"]
    digest = content_key([weights_hash(folder), [[f.name, file_hash(f)] for f in small]])
    write_atomic(memory, digest)
    return digest


def remembered_hash(path: Path) -> str:
    """sha256 of one large file, read once: remembered by its name, size and times."""
    memory = cache_dir("hashes") / content_key([str(path.resolve()), *stamp(path)])
    if not memory.is_file():
        write_atomic(memory, file_hash(path))
    return memory.read_text()


def gguf_hash(path: Path) -> str:
    """sha256 of a GGUF file, of all parts of one that is split."""
    parts = gguf_parts(path)
    return remembered_hash(path) if parts == [path] else content_key([remembered_hash(part) for part in parts])


def gguf_parts(path: Path) -> list[Path]:
    """The files that llama.cpp loads by this name: of `x-00001-of-00003.gguf` all three, as far as they are there."""
    if not (split := re.fullmatch(r"(.*-)\d{5}(-of-\d{5}\.gguf)", path.name)):
        return [path]
    return sorted(path.parent.glob(f"{escape(split[1])}[0-9][0-9][0-9][0-9][0-9]{split[2]}"))


def file_hash(path: Path) -> str:
    """sha256 of one file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """sha256 over the names and contents of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return content_key([[str(path.relative_to(folder)), file_hash(path)] for path in files])


def suite_data(suite: SuiteBase | ParitySpec) -> dict[str, str]:
    """What a suite reads, each with its hash. Raises UserError for data that are not there."""
    if isinstance(suite, PerplexitySpec) and suite.protocol in OF_DOCUMENTS:
        return {suite.text: resolve_documents(suite.text, suite.text_field).sha256}
    if isinstance(suite, PerplexitySpec | DivergenceSpec | ParitySpec):
        return {suite.text: resolve_text(suite.text).sha256}
    if isinstance(suite, TasksSpec):
        from awqbench.suites.slices import item_columns
        from awqbench.suites.task_loading import documents_of, load_tasks

        # Loading them here also finds a misspelt name or column before anything is measured.
        tasks = load_tasks(suite.tasks, suite.include_path, suite.num_fewshot, 0)
        documents = documents_of(tasks)
        item_columns(documents, suite.slices, suite.cluster)
        asked = {f"task {name}": content_key([_what_is_asked(task), documents[name]]) for name, task in tasks.items()}
        return {**asked, "lm-eval": version("lm-eval")}
    if isinstance(suite, FairnessSpec):
        from awqbench.suites.fairness_sets import set_hash

        return {name: set_hash(name) for name in suite.sets}
    return {}


def _what_is_asked(task: Any) -> dict[str, Any]:
    """A task's configuration, the code behind it and the examples it shows, without where its files lie.

    The same task has the same hash in every process and on every machine.
    """
    config = task.config.to_dict(keep_callable=True)
    asked = {key: _told(value) for key, value in config.items() if key not in {"dataset_path", "dataset_kwargs"}}
    asked["metadata"] = {**asked.get("metadata", {}), "config_source": "inline"}  # else the YAML's path
    if type(task).__module__ != "lm_eval.api.task":
        asked["class"] = _told(type(task))
    if config.get("num_fewshot"):
        examples = task.fewshot_docs()
        asked["examples"] = examples.to_list() if hasattr(examples, "to_list") else list(examples)
    return asked


def _told(value: Any) -> Any:
    """Plain data; a function by its name and the file that it is written in, which has what it calls as well."""
    if isinstance(value, Mapping):
        return {key: _told(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_told(inner) for inner in value]
    if isinstance(value, partial):
        return [_told(part) for part in (value.func, value.args, value.keywords)]
    if not callable(value):
        return value
    code: Any = inspect.unwrap(value if hasattr(value, "__qualname__") else type(value))
    try:
        return [code.__qualname__, file_hash(Path(inspect.getfile(code)))]
    except (TypeError, OSError):  # built in
        return code.__qualname__
