"""Where things lie in a run directory."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from awqbench.errors import UserError
from awqbench.locks import taken

# What is made of the cells and can be made of them again.
CONCLUSIONS = ("comparison.json", "verdict.json", "report.html", "report.md", "junit.xml", "eval_results.yaml")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run directory. Making the object touches nothing."""

    root: Path

    @property
    def manifest(self) -> Path:
        """What was run, on what, with what."""
        return self.root / "manifest.json"

    @property
    def comparison(self) -> Path:
        """Paired differences."""
        return self.root / "comparison.json"

    @property
    def verdict(self) -> Path:
        """The gates' answers."""
        return self.root / "verdict.json"

    @property
    def cells(self) -> Path:
        """One folder per backend, one per suite inside it."""
        return self.root / "cells"

    @property
    def attributions(self) -> Path:
        """A file per attribution of a backend's damage to its weights."""
        return self.root / "attribution"

    @property
    def parity(self) -> Path:
        """One folder per engine that was held against the reference on the unquantized model."""
        return self.root / "parity"

    @property
    def confirmation(self) -> Path:
        """A run directory of its own: what failed, measured again on other items."""
        return self.root / "confirmation"

    def cell(self, backend: str, suite: str) -> Path:
        """The folder of one finished cell; parity stands apart, as it measures no backend's own weights."""
        return self.parity / backend if suite == "parity" else self.cells / backend / suite

    def checkpoint(self, backend: str) -> Path:
        """The quantized checkpoint made for one backend."""
        return self.root / "checkpoints" / backend

    def scratch(self, key: str) -> Path:
        """What jobs leave for later jobs; removed when the run is complete."""
        return self.root / "scratch" / key[:16]

    def is_empty(self) -> bool:
        """Whether no job has left a result."""
        return not any((self.root / name).exists() for name in ("cells", "parity", "checkpoints", "scratch"))

    def refuse_foreign(self) -> None:
        """Raise UserError when the place holds something else than a run, of which a killed one may lack a manifest."""
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"{self.root} is a file: choose another --out")
        own = (".lock", f".{self.manifest.name}.")
        if self.root.is_dir() and not self.manifest.exists():
            foreign = [entry.name for entry in self.root.iterdir() if not entry.name.startswith(own)]
            if foreign:
                raise UserError(
                    f"{self.root} is not empty and no run directory (it holds {min(foreign)}): choose another --out"
                )

    def drop_conclusions(self) -> None:
        """Remove what was made of the cells: beside others a reader would take it for what these say."""
        for name in CONCLUSIONS:
            (self.root / name).unlink(missing_ok=True)

    def drop_scratch(self, kept: Collection[str] = ()) -> None:
        """Remove what only unfinished jobs would have read, but for what jobs with these keys left."""
        names = {self.scratch(key).name for key in kept}
        for left in (self.root / "scratch").glob("*"):
            if left.name not in names:
                shutil.rmtree(left, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.root / "scratch").rmdir()

    def unfinished(self, name: str) -> Path:
        """A folder to write a result in before it is renamed into place."""
        return self.root / "unfinished" / name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory against a second run; also clears what a killed run left unfinished.

        Raises UserError when another process holds it. The kernel frees the lock of a killed process.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / ".lock").open("w")
        except OSError as error:
            raise UserError(f"cannot write the run directory {self.root}: {error.strerror}") from None
        with handle:
            if not taken(handle, self.root):
                raise UserError(f"another awqbench is at work in {self.root}")
            shutil.rmtree(self.root / "unfinished", ignore_errors=True)
            yield


def move_into_place(finished: Path, place: Path) -> None:
    """Rename a complete folder to its place, over an older one if there is one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        # A folder can't be renamed over one that has files: the old one steps aside and goes.
        old = finished.with_name(finished.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        finished.rename(place)
        shutil.rmtree(old)
    else:
        finished.rename(place)
