from __future__ import annotations

from pathlib import Path

import pytest
import torch

from awqbench.quantization.activations import Activations, Writer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_come_back_as_they_were(tmp_path: Path, dtype: torch.dtype) -> None:
    batches = [torch.randn(2, 3, 5).to(dtype) for _ in range(4)]
    with Writer(tmp_path / "hidden.bin") as write:
        for batch in batches:
            write(batch)
    assert len(write.written) == 4
    again = Activations.described(tmp_path / "hidden.bin", write.written.describe())
    assert all(torch.equal(one, other) for one, other in zip(again, batches, strict=True))
    assert torch.equal(again[3], batches[3])


def test_a_batch_that_is_a_view_is_written_as_what_it_shows(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    with Writer(tmp_path / "hidden.bin") as write:
        write(whole.T[1:3])
    assert torch.equal(write.written[0], whole.T[1:3])


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with Writer(tmp_path / "hidden.bin") as write:
            write(torch.zeros(2))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())


def test_batches_of_another_shape_or_a_cut_file_are_refused(tmp_path: Path) -> None:
    def mix() -> None:
        with Writer(tmp_path / "mixed.bin") as write:
            write(torch.zeros(2))
            write(torch.zeros(3))

    with pytest.raises(ValueError, match=r"\[3\].*after \[2\]"):
        mix()
    with Writer(tmp_path / "hidden.bin") as write:
        write(torch.zeros(2))
    (tmp_path / "hidden.bin").write_bytes(b"1234")
    with pytest.raises(ValueError, match="has 4 bytes, not 8"):
        Activations.described(tmp_path / "hidden.bin", write.written.describe())
