"""A failure is measured again on other windows, beside the run it belongs to."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from awqbench.record.reader import load_run
from awqbench.score import judge_run

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_failure_is_confirmed_on_the_next_windows(awqbench: Command, finished: Path, tmp_path: Path) -> None:
    run, policy = tmp_path / "run", tmp_path / "policy.toml"
    shutil.copytree(finished, run)
    before = (run / "verdict.json").read_bytes()
    policy.write_text('[[gates]]\nmetric = "divergence/*/prefill/kl"\nmargin = 0.000001\n')
    done = awqbench("gate", run, "--policy", policy, "--confirm", "--json")
    assert done.returncode == 1, done.stderr
    verdict = json.loads(done.stdout)
    (rule,) = verdict["rules"]
    assert (rule["confirmation"]["outcome"], rule["confirmation"]["fresh"]) == ("confirmed", 3)
    assert verdict["policy"] == str(policy)
    assert "not the limits that were declared" in verdict["notes"][0]
    assert (run / "verdict.json").read_bytes() == before

    again = load_run(run / "confirmation")
    assert [(c.result.backend, c.result.suite) for c in again.cells] == [("awq", "divergence")]
    assert {item[8:13] for item in again.cells[0].items["item_id"] if item.startswith("prefill")} == {
        "00003", "00004", "00005",
    }  # fmt: skip
    first = load_run(run)
    assert again.manifest.confirms == {
        "awq/divergence": next(
            c.result.key for c in first.cells if (c.result.backend, c.result.suite) == ("awq", "divergence")
        )
    }
    assert not (run / "confirmation" / "checkpoints").exists()

    # What is there is heard without being asked for, as long as it repeats these cells.
    assert judge_run(load_run(run), policy, write=False).rules[0].confirmation is not None
    manifest = run / "confirmation" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["confirms"] = {"awq/divergence": "another"}
    manifest.write_text(json.dumps(data))
    assert judge_run(load_run(run), policy, write=False).rules[0].confirmation is None


def test_a_baseline_holds_no_other_items(awqbench: Command, finished: Path) -> None:
    done = awqbench("gate", finished, "--baseline", finished, "--confirm")
    assert done.returncode == 2
    assert "leave one out" in done.stderr
