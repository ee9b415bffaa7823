from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from awqbench.errors import UserError
from awqbench.quantization.workspace import Workspace

ASKED: dict[str, Any] = {"recipe": {"bits": 4}, "model": [["a", 1]]}


def finish(workspace: Workspace, index: int) -> None:
    with workspace.hidden_writer(index + 1) as write:
        write(torch.full((1, 2), float(index)))
    workspace.save_block(index, {"w": torch.ones(2)}, {"linears": []})


def test_finished_blocks_and_the_next_input_survive(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    with suppress(KeyboardInterrupt), workspace.opened(ASKED, resume=False):
        with workspace.hidden_writer(0) as write:
            write(torch.zeros(1, 2))
        finish(workspace, 0)
        finish(workspace, 1)
        raise KeyboardInterrupt
    again = Workspace(tmp_path / "out")
    with again.opened(ASKED, resume=True):
        assert again.finished() == 2
        assert again.held == sum(path.stat().st_size for path in again.folder.rglob("*.*")) > 0
        assert torch.equal(again.hidden(2)[0], torch.full((1, 2), 1.0))
        assert again.record(1) == {"linears": []}
        assert not list(again.folder.glob("hidden-00000*.bin"))


def test_a_block_without_its_record_does_not_count(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    with workspace.opened(ASKED, resume=False):
        finish(workspace, 0)
        finish(workspace, 1)
        (workspace.folder / "blocks" / "00001.json").unlink()
        assert workspace.finished() == 1


def test_unfinished_work_is_neither_lost_nor_mixed_up(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    with workspace.opened(ASKED, resume=False):
        finish(workspace, 0)
    with pytest.raises(UserError, match=r"unfinished quantization, 1 blocks.*--resume"), workspace.opened(ASKED, False):
        pass
    with (
        pytest.raises(UserError, match=r"begun with another recipe: \{'bits': 4\}, not \{'bits': 3\}"),
        workspace.opened({**ASKED, "recipe": {"bits": 3}}, True),
    ):
        pass
    assert workspace.finished() == 1


@pytest.mark.parametrize("resume", [False, True])
def test_two_processes_do_not_share_it(tmp_path: Path, resume: bool) -> None:
    with (
        Workspace(tmp_path / "out").opened(ASKED, resume=False),
        pytest.raises(UserError, match="another process"),  # and not that its folder may be removed
        Workspace(tmp_path / "out").opened(ASKED, resume=resume),
    ):
        pass


def test_a_file_system_without_locks_is_worked_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with Workspace(tmp_path / "out").opened(ASKED, resume=False):
        assert "cannot be locked (No locks available)" in caplog.text


def test_nothing_is_left_of_work_that_finished_no_block(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), workspace.opened(ASKED, resume=False):
        raise KeyboardInterrupt
    assert not workspace.folder.exists()


def test_damaged_hidden_states_are_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    with workspace.opened(ASKED, resume=False):
        finish(workspace, 0)
        (workspace.folder / "hidden-00001.bin").write_bytes(b"")
        with pytest.raises(UserError, match="damaged"):
            workspace.hidden(1)
