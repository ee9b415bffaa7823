"""Hashes depend on what is asked, and on nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from awqbench.fingerprint import suite_data
from awqbench.resources import content
from awqbench.spec import FairnessSpec, TasksSpec


def own_tasks(folder: Path) -> TasksSpec:
    """A copy of the shipped task elsewhere, under another name."""
    shutil.copytree(content("suites") / "tasks", folder)
    yaml = folder / "awqbench_commonplace.yaml"
    yaml.write_text(yaml.read_text().replace("task: awqbench_commonplace", "task: copied"))
    return TasksSpec(tasks=["copied"], include_path=str(folder))


def test_the_same_task_in_another_place_is_the_same_task(tmp_path: Path) -> None:
    one, other = (suite_data(own_tasks(tmp_path / name))["task copied"] for name in ("a", "b"))
    assert one == other


def test_another_gold_answer_is_another_task(tmp_path: Path) -> None:
    suite = own_tasks(tmp_path / "a")
    before = suite_data(suite)
    items = tmp_path / "a" / "awqbench_commonplace.jsonl"
    items.write_text(items.read_text().replace('"gold": 1', '"gold": 2', 1))
    assert suite_data(suite) != before


def test_fairness_sets_are_hashed_by_their_items() -> None:
    assert suite_data(FairnessSpec()) == suite_data(FairnessSpec())
