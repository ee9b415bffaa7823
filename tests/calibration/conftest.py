"""A real, trained, tiny model measured in this process: reference, candidates and gates without a worker each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from awqbench.backends.torch_engine import TorchEngine
from awqbench.compare.cell import Cell
from awqbench.record.schema import CellResult
from awqbench.spec import RunSpec
from awqbench.suites.base import Context, measure
from awqbench.suites.divergence import record_reference

SCRIPTS = Path(__file__).resolve().parents[2] / "suites" / "calibration" / "real"
SUITES = ("perplexity", "divergence", "fairness")


@pytest.fixture(scope="session", autouse=True)
def _scripts() -> Iterator[None]:
    """The programs of suites/calibration/real are content, not a package: they find each other in their folder."""
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


class InProcess:
    """A TorchEngine with the signatures of a worker's client."""

    def __init__(self, model: Any, batch_size: int) -> None:
        self.engine = TorchEngine()
        self.engine.model, self.engine.device, self.engine.batch_size = model, torch.device("cpu"), batch_size
        self.engine.runtime = self.engine.attach({})
        self.description = {"max_positions": model.config.max_position_embeddings, "capabilities": []}

    def offers(self, capability: str) -> bool:
        return capability in ("score", "logprobs", "decode-logprobs")

    def score(self, sequences: Any, starts: Any, progress: Any = None) -> list[Any]:
        with torch.no_grad():
            return list(self.engine.score([list(s) for s in sequences], list(starts)))

    def logprobs(self, ids: list[int], start: int, route: Any) -> Iterator[np.ndarray]:
        with torch.no_grad():
            yield from self.engine.logprobs(ids, start, route)


@dataclass
class Stories:
    """stories260k with the texts and questions it can answer."""

    folder: Path
    questions: Path
    spec: RunSpec
    scratch: Path

    def model(self, folder: Path | None = None) -> Any:
        """The model of a folder, or the unquantized one."""
        return AutoModelForCausalLM.from_pretrained(folder or self.folder, dtype=torch.float32).eval()

    def cells(
        self, name: str, model: Any, batch_size: int = 32, *, suites: Sequence[str] = SUITES, share: float = 1.0
    ) -> list[Cell]:
        """What the suites measure of a model, as the reference or as a candidate. The reference comes first."""
        found = []
        worker: Any = InProcess(model, batch_size)
        for suite in suites:
            context = Context(
                spec=self.spec, suite=self.spec.suites[suite], worker=worker, model_dir=self.folder,
                scratch=self.scratch, share=share,
            )  # fmt: skip
            if name == "reference" and suite == "divergence":
                record_reference(context, self.scratch)
                continue
            measured = measure(context)
            result = CellResult(
                backend=name, suite=suite, kind=suite, role="reference" if name == "reference" else "candidate",
                key="", status="ok", metrics=measured.metrics,
            )  # fmt: skip
            found.append(Cell(result, measured.items))
        return found


@pytest.fixture(scope="session")
def stories(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Stories:
    """The model, its text, and 60 questions about each of 20 characters."""
    folder = data_dir / "models" / "stories260k"
    questions = SCRIPTS / "stories"
    spec = RunSpec.model_validate({
        "model": {"source": str(folder)},
        "suites": {
            "perplexity": {"text": str(data_dir / "tinystories" / "sample.txt"), "window": 128, "windows": 24},
            "divergence": {
                "text": str(data_dir / "tinystories" / "sample.txt"), "window": 64, "windows": 24, "decode_window": 16,
                "decode_windows": 8,
            },
            "fairness": {"sets": [f"counterfactual:{questions}"]},
        },
    })  # fmt: skip
    return Stories(folder, questions, spec, tmp_path_factory.mktemp("logprobs"))


@pytest.fixture(scope="session")
def reference(stories: Stories) -> list[Cell]:
    """The unquantized model's cells."""
    return stories.cells("reference", stories.model())


@pytest.fixture(scope="session")
def tokenizer(stories: Stories) -> Any:
    return AutoTokenizer.from_pretrained(stories.folder)


@pytest.fixture(scope="session")
def candidate(stories: Stories, reference: list[Cell]) -> Callable[..., list[Cell]]:
    """candidate(model, batch_size, suites=..., share=...): the cells of a model, measured after the reference."""
    return partial(stories.cells, "candidate")
