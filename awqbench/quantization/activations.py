"""Hidden states of the calibration text on disk: memory does not grow with the text, and a killed run finds them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import torch
from torch import Tensor


class Activations(Sequence[Tensor]):
    """Batches of one shape and type in one file; indexing reads one batch, onto `device`."""

    device = "cpu"

    def __init__(self, file: Path, shape: Sequence[int], dtype: torch.dtype, count: int) -> None:
        self.file, self.shape, self.dtype, self._count = Path(file), tuple(shape), dtype, count
        self._bytes = torch.empty(self.shape, dtype=dtype, device="meta").nbytes

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        with self.file.open("rb") as stream:
            stream.seek(index * self._bytes)
            content = bytearray(stream.read(self._bytes))
        return torch.frombuffer(content, dtype=self.dtype).view(self.shape).to(self.device)

    def describe(self) -> dict[str, Any]:
        """All but the file's name, as JSON data."""
        return {"shape": list(self.shape), "dtype": str(self.dtype).removeprefix("torch."), "count": self._count}

    @classmethod
    def described(cls, file: Path, description: dict[str, Any]) -> Activations:
        """The inverse of `describe`; raises ValueError when the file's size belies the description."""
        dtype = getattr(torch, description["dtype"])
        found = cls(file, description["shape"], dtype, description["count"])
        if file.stat().st_size != found._bytes * found._count:
            raise ValueError(f"{file} has {file.stat().st_size} bytes, not {found._bytes * found._count}")
        return found


class Writer:
    """Writes batches one after another; the file takes its name when the `with` block ends without an error."""

    def __init__(self, file: Path) -> None:
        self._file, self._unfinished = Path(file), Path(file).with_suffix(".unfinished")
        self._shape: tuple[int, ...] = ()
        self._dtype = torch.float32
        self._count = 0

    def __enter__(self) -> Self:
        self._stream = self._unfinished.open("wb")
        return self

    def __call__(self, batch: Tensor) -> None:
        """Append one batch, of the shape and type of the first."""
        batch = batch.detach().cpu().contiguous()
        if self._count == 0:
            self._shape, self._dtype = tuple(batch.shape), batch.dtype
        if (tuple(batch.shape), batch.dtype) != (self._shape, self._dtype):
            raise ValueError(f"a batch {list(batch.shape)} {batch.dtype} after {list(self._shape)} {self._dtype}")
        self._stream.write(batch.view(torch.uint8).numpy().data)
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        if kind is None:
            os.replace(self._unfinished, self._file)
        else:
            self._unfinished.unlink(missing_ok=True)

    @property
    def written(self) -> Activations:
        """What was written, once it's complete."""
        return Activations(self._file, self._shape, self._dtype, self._count)
