"""Tensors of a checkpoint into a model through transformers' own conversions, which rename, merge and split them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging

from awqbench.errors import UserError
from awqbench.modeling.names import Names


def load_converted(
    model: PreTrainedModel,
    names: Names,
    tensors: Iterable[str],
    read: Callable[[str], Tensor],
    device: str | torch.device = "cpu",
) -> None:
    """Give the model the tensors named, in its parameters' dtype; `read` is called for each when its turn comes.

    Raises UserError when a tensor has the wrong shape or cannot be converted.
    """
    state: dict[str, Any] = {name: _Lazy(read, name) for name in tensors}
    if not state:
        return
    # What the model has beside these counts as missing, which it is for now.
    config = LoadStateDictConfig(device_map={"": torch.device(device)}, weight_mapping=names.mapping)
    with _no_progress_bar():
        info, _ = convert_and_load_state_dict_in_model(model, state, config)
    problems = [*info.conversion_errors.values(), *info.error_msgs]
    problems += [
        f"{name} is {list(found)}, config.json wants {list(right)}" for name, found, right in info.mismatched_keys
    ]
    if problems:
        raise UserError(str(problems[0]).strip().splitlines()[0])
    model.requires_grad_(False)


class _Lazy:
    """What transformers expects of an unread tensor: indexing reads it."""

    def __init__(self, read: Callable[[str], Tensor], name: str) -> None:
        self._read, self._name = read, name

    def __getitem__(self, index: Any) -> Tensor:
        return self._read(self._name)[index]


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Without transformers' bar."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
