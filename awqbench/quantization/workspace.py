"""The folder of unfinished work beside a checkpoint: finished blocks are durable, a killed run goes on from them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from awqbench.errors import UserError
from awqbench.locks import taken
from awqbench.quantization.activations import Activations, Writer

_FINGERPRINT = "fingerprint.json"


class Workspace:
    """`<out>.partial`: blocks that are done, and the hidden states that the next one receives.

    The hidden states are kept rather than computed anew: another order of summation would give other bytes.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(f"{out.name}.partial")
        self._blocks = self.folder / "blocks"

    @contextmanager
    def opened(self, fingerprint: Mapping[str, Any], resume: bool) -> Iterator[None]:
        """Hold the folder, made or taken up again; removed when nothing was finished in it.

        Raises UserError when there is unfinished work and `resume` is not set, when that work was asked for otherwise
        (the first difference is named), or when another process is at it.
        """
        self._blocks.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            if not taken(lock, self.folder):
                raise UserError(f"another process is quantizing into {self.folder}")
            if (self.folder / _FINGERPRINT).is_file():
                if not resume:
                    raise UserError(
                        f"{self.folder} holds an unfinished quantization, {self.finished()} blocks of it done"
                        " (allowed: --resume to go on with it, or remove that folder)"
                    )
                self._refuse_other(fingerprint)
            _write_json(self.folder / _FINGERPRINT, fingerprint)
            try:
                yield
            except BaseException:
                if not self.finished():
                    self.remove()
                raise

    def finished(self) -> int:
        """How many blocks are done."""
        return len(list(self._blocks.glob("*.json")))

    @property
    def held(self) -> int:
        """Bytes of the unfinished work that is there."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def missing(self, total: int) -> list[int]:
        """The blocks of `total` that are not done."""
        return [index for index in range(total) if not self._record_file(index).is_file()]

    def begun_with(self) -> dict[str, Any]:
        """The fingerprint of the unfinished work that is there; empty when there is none."""
        try:
            content: dict[str, Any] = json.loads((self.folder / _FINGERPRINT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content

    def hidden(self, index: int) -> Activations:
        """What block `index` receives. Raises UserError when the file was damaged."""
        try:
            return Activations.described(self._hidden_file(index), self._description(index))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"the unfinished work is damaged ({error}): remove {self.folder}") from None

    def received(self, index: int) -> bool:
        """Whether what block `index` receives is there, or was until the block was done."""
        return self._hidden_file(index).with_suffix(".json").is_file()

    @contextmanager
    def hidden_writer(self, index: int) -> Iterator[Writer]:
        """Where what block `index` will receive goes."""
        with Writer(self._hidden_file(index)) as writer:
            yield writer
        _write_json(self._hidden_file(index).with_suffix(".json"), writer.written.describe())

    def save_block(self, index: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Make a block's outcome durable; the record is written last and means that it's whole."""
        unfinished = self.tensors_file(index).with_suffix(".unfinished")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished)
        _flush(unfinished)
        os.replace(unfinished, self.tensors_file(index))
        _write_json(self._record_file(index), record)
        self._hidden_file(index).unlink(missing_ok=True)

    def record(self, index: int) -> dict[str, Any]:
        """What `save_block` was given."""
        content: dict[str, Any] = json.loads(self._record_file(index).read_text(encoding="utf-8"))
        return content

    def tensors_file(self, index: int) -> Path:
        """The safetensors file of a block's tensors."""
        return self._blocks / f"{index:05d}.safetensors"

    def remove(self) -> None:
        """The work is done, or none was."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record_file(self, index: int) -> Path:
        return self._blocks / f"{index:05d}.json"

    def _hidden_file(self, index: int) -> Path:
        return self.folder / f"hidden-{index:05d}.bin"

    def _description(self, index: int) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._hidden_file(index).with_suffix(".json").read_text(encoding="utf-8"))
        return content

    def _refuse_other(self, fingerprint: Mapping[str, Any]) -> None:
        earlier = self.begun_with()
        now = json.loads(json.dumps(fingerprint))
        changed = [key for key in now if earlier.get(key) != now[key]]
        if changed:
            raise UserError(
                f"the work in {self.folder} was begun with another {changed[0]}: {earlier.get(changed[0])}, not"
                f" {now[changed[0]]} (allowed: the same as before, or remove that folder)"
            )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    unfinished = path.with_suffix(f"{path.suffix}.unfinished")
    unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    _flush(unfinished)
    os.replace(unfinished, path)


def _flush(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())
