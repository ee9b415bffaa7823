"""From task names to lm-eval task objects with their data. Imports lm-eval: import it inside functions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import lm_eval.tasks
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from awqbench import resources
from awqbench.cache import cache_dir
from awqbench.errors import UserError, first_line
from awqbench.record.files import content_key
from awqbench.sources.hub import hub_refusal

# NAME_local asks what lm-eval's NAME asks, of data that need no hub.
LOCAL = "_local"
_LM_EVAL = Path(lm_eval.tasks.__file__).resolve().parent


def load_tasks(names: list[str], include_path: str | None, num_fewshot: int | None, seed: int) -> dict[str, Task]:
    """Load tasks, groups and tags by name: this project's and the user's folders first, then lm-eval's own.

    A local YAML may name its data files relative to itself, or below an environment variable ("$DATA/items.jsonl").
    Where the data of NAME cannot be had, a task NAME_local takes its place, under its own name. Raises UserError for a
    name nobody knows (with near ones), for data that cannot be had, for a task whose YAML or code fails, and for one
    that cannot be asked here: without documents, whose answers are run as code, which shows more than text, or of an
    unknown metric.
    """
    folders = [resources.content("suites") / "tasks"]
    if include_path is not None:
        folders.append(Path(include_path).expanduser())
        if not folders[-1].is_dir():
            raise UserError(f"include_path {include_path!r} is not a folder")
    manager = TaskManager(include_path=folders, include_defaults=False)
    if missing := [name for name in names if name not in manager.task_index]:
        local = manager.all_tasks
        _no_hub_no_retries()
        manager = _with_defaults(tuple(folders), _stamp(folders))
        for name in missing:
            if name not in manager.task_index:
                _check_readable(folders)
                raise UserError(_unknown(name, manager.all_tasks, local))
    _locate_data(manager)
    tasks: dict[str, Task] = {}
    for name in names:
        tasks.update(_load_or_local(manager, name))
    for task in tasks.values():
        if num_fewshot is not None:
            task.set_config(key="num_fewshot", value=num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=seed)
        _check_examples(task)
    return tasks


def _check_examples(task: Task) -> None:
    """Raise UserError where a task has fewer examples than are asked for.

    Where it has none of its own, lm-eval takes them from its questions: told that, it leaves out the one that is asked.
    """
    shots, sampler = task.get_config("num_fewshot"), getattr(task, "sampler", None)
    if not shots or sampler is None:
        return
    taken, asked = task.fewshot_cfg, task.config.test_split
    own = task.has_training_docs() or task.has_validation_docs() or taken.samples is not None
    if taken.split is None and not own:
        taken.split = asked
    allowed = len(sampler.df) - (taken.split == asked)
    if shots > allowed:
        raise UserError(f"task {task.config.task!r} has no {shots} examples (allowed: num_fewshot = 0 to {allowed})")


@cache
def _with_defaults(folders: tuple[Path, ...], stamp: tuple[object, ...]) -> TaskManager:
    """All tasks there are. Reading the 14,000 names that lm-eval ships takes many seconds, so it is done once."""
    return TaskManager(include_path=list(folders), include_defaults=True)


def _stamp(folders: list[Path]) -> tuple[object, ...]:
    """What the content of local task files, and of the code beside them, depends on."""
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return os.environ.get("AWQBENCH_DATA"), *((str(path), path.stat().st_mtime_ns) for path in files)


def _no_hub_no_retries() -> None:
    """Where the hub can't be reached, have the data libraries say so at once instead of trying for half a minute."""
    if hub_refusal():
        datasets.config.HF_HUB_OFFLINE = True
        huggingface_hub.constants.HF_HUB_OFFLINE = True


def documents_of(tasks: Mapping[str, Task]) -> dict[str, list[Mapping[str, Any]]]:
    """Every task's documents as plain data. A data set gives them all at once far faster than one by one."""
    return {
        name: task.eval_docs.to_list() if hasattr(task.eval_docs, "to_list") else list(task.eval_docs)
        for name, task in tasks.items()
    }


def _load_or_local(manager: TaskManager, name: str) -> dict[str, Task]:
    try:
        return _load(manager, name)
    except UserError as error:
        local = name + LOCAL
        if local not in manager.task_index:
            raise
        try:
            return _load(manager, local)
        except UserError:
            raise UserError(f"{error}; {local}, which takes its place, needs its file below AWQBENCH_DATA") from None


def _load(manager: TaskManager, name: str) -> dict[str, Task]:
    try:
        loaded: dict[str, Task] = manager.load(name)["tasks"]
        for task in loaded.values():
            len(task.eval_docs)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        offline = ", and HF_HUB_OFFLINE is set" if datasets.config.HF_HUB_OFFLINE else ""
        raise UserError(f"the data of task {name!r} cannot be loaded{offline}: {first_line(error)}") from error
    except Exception as error:  # of the task's own YAML and code, or of a package that it wants
        # lm-eval looks at the first document of a task, whether or not there is one.
        empty = " (has it no documents?)" if isinstance(error, IndexError) else ""
        told = f"{type(error).__name__}: {first_line(error)}{empty}"
        raise UserError(f"task {name!r} cannot be loaded: {told}") from error
    for own, task in loaded.items():
        if reason := _refusal(task):
            raise UserError(f"task {own!r} {reason}")
    return loaded


def _refusal(task: Task) -> str | None:
    """Why lm-eval would refuse a task, or trip over it, after everything before it was measured."""
    if getattr(task, "UNSAFE_CODE", False):
        return "runs the code that a model writes, which awqbench never does"
    if getattr(task, "MULTIMODAL", False):
        return "shows images or sounds (allowed: tasks of text)"
    if not len(task.eval_docs):
        return "has no documents"
    if task.OUTPUT_TYPE != "generate_until" or task.get_config("process_results"):
        return None
    unknown = [metric for metric, function in getattr(task, "_metric_fn_list", {}).items() if function is None]
    return f"asks for the metric {unknown[0]!r}, which neither lm-eval nor `evaluate` has here" if unknown else None


def _check_readable(folders: list[Path]) -> None:
    """Raise UserError for a task file that lm-eval passed over, since it is no YAML."""
    for file in (file for folder in folders for file in sorted(folder.rglob("*.yaml"))):
        try:
            load_yaml(file, resolve_func=False)
        except Exception as error:
            raise UserError(f"{file} is no task: {type(error).__name__}: {' '.join(str(error).split())}") from None


def _locate_data(manager: TaskManager) -> None:
    """Give every local task the absolute places of its data files: lm-eval would look from the working folder.

    And a folder of their own for what datasets keeps of them: it knows files by place and time of change alone, which
    all files of an archive may share with their earlier versions.
    """
    for entry in manager.task_index.values():
        kwargs = (entry.cfg or {}).get("dataset_kwargs") or {}
        if entry.yaml_path and "data_files" in kwargs and _LM_EVAL not in entry.yaml_path.parents:
            files = _located(kwargs["data_files"], entry.yaml_path.parent)
            try:
                config = load_yaml(entry.yaml_path, resolve_func=True)
            except Exception:  # its code fails: told when it is asked for, by `_load`
                continue
            kept = cache_dir("documents") / content_key(_state(files))[:16]
            entry.cfg = {**config, "dataset_kwargs": {"cache_dir": str(kept), **kwargs, "data_files": files}}
            entry.yaml_path = None  # or lm-eval would read the file again


def _located(files: Any, folder: Path) -> Any:
    if isinstance(files, dict):
        return {split: _located(value, folder) for split, value in files.items()}
    if isinstance(files, list):
        return [_located(value, folder) for value in files]
    return files if "://" in files else str(folder / Path(os.path.expandvars(files)).expanduser())


def _state(files: Any) -> Any:
    """What is another for another file, even one of the same size and time of change in the same place."""
    if isinstance(files, dict | list):
        return [_state(inner) for inner in (files.values() if isinstance(files, dict) else files)]
    stats = [os.stat(path) for path in sorted(glob(files)) if os.path.exists(path)]
    return [files, *((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for stat in stats)]


def _unknown(name: str, known: list[str], local: list[str]) -> str:
    near = get_close_matches(name, known, n=4)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown task {name!r}{hint} (here: {', '.join(local)}; and the {len(known)} that `lm-eval ls tasks` lists)"
