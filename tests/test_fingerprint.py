"""Hashes depend on what is asked, and on nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from awqbench.fingerprint import gguf_hash, gguf_parts, model_hash, suite_data
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


def task_with_code(folder: Path, **data: list[str]) -> Path:
    """A task whose functions are written in a file beside it; `data`: the texts of each split."""
    folder.mkdir()
    (folder / "code.py").write_text(
        "from functools import partial\n\nMARK = 'Q: '\n\n\ndef put(mark, doc):\n    return mark + doc['text']\n\n\n"
        "asked = partial(put, MARK)\n\n\ndef chosen(docs):\n    return docs\n"
    )
    for split, texts in data.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    files = "".join(f"    {split}: {split}.jsonl\n" for split in data)
    (folder / "coded.yaml").write_text(
        f"task: coded\ndataset_path: json\ndataset_kwargs:\n  data_files:\n{files}test_split: test\n"
        "fewshot_split: train\nprocess_docs: !function code.chosen\noutput_type: multiple_choice\n"
        "doc_to_text: !function code.asked\ndoc_to_choice: ['yes', 'no']\ndoc_to_target: 0\n"
        "metric_list:\n  - metric: acc\n"
    )
    return folder


def hash_of(folder: Path, shots: int) -> str:
    return suite_data(TasksSpec(tasks=["coded"], include_path=str(folder), num_fewshot=shots))["task coded"]


@pytest.mark.parametrize("shots", [0, 2])
def test_functions_and_examples_of_a_task_are_hashed_by_what_they_say(tmp_path: Path, shots: int) -> None:
    texts = {"test": ["one", "two"], "train": ["three", "four", "five"]}
    one = task_with_code(tmp_path / "a", **texts)
    before = hash_of(one, shots)
    # Functions loaded from another place are other objects, as they are in another process.
    assert hash_of(task_with_code(tmp_path / "b", **texts), shots) == before
    assert (hash_of(task_with_code(tmp_path / "c", **{**texts, "train": ["six"] * 3}), shots) != before) == (shots > 0)
    code = one / "code.py"
    code.write_text(code.read_text().replace("'Q: '", "'Question: '"))
    assert hash_of(one, shots) != before


def test_the_committed_baseline_is_of_the_task_as_it_is() -> None:
    baseline = json.loads((Path(__file__).parent / "baselines" / "demo.json").read_text())
    data = suite_data(TasksSpec())
    assert data["task awqbench_commonplace"] == baseline["data"]["task awqbench_commonplace"]


def test_fairness_sets_are_hashed_by_their_items() -> None:
    assert suite_data(FairnessSpec()) == suite_data(FairnessSpec())


def rewrite(path: Path) -> None:
    """Other content of the same size and modification time: what unpacking an archive of normalized times leaves."""
    stat = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    while path.stat().st_ctime_ns == stat.st_ctime_ns:  # clocks of file systems tick slowly
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_weights_that_were_replaced_under_their_old_time_are_others(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    before = model_hash(tmp_path), gguf_hash(weights)
    rewrite(weights)
    after = model_hash(tmp_path), gguf_hash(weights)
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_a_split_file_is_all_its_parts(tmp_path: Path) -> None:
    parts = [tmp_path / f"m[1]-{i:05d}-of-00002.gguf" for i in (1, 2)]
    others = [tmp_path / name for name in ("m[1].gguf", "m[1]-00001-of-00003.gguf", "m1-00002-of-00002.gguf")]
    for path in [*parts, *others]:
        path.write_bytes(path.name.encode())
    assert gguf_parts(parts[0]) == parts
    assert gguf_parts(others[0]) == [others[0]]
    before = gguf_hash(parts[0])
    rewrite(others[1])
    assert gguf_hash(parts[0]) == before
    rewrite(parts[1])
    assert gguf_hash(parts[0]) != before
