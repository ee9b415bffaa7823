"""A tensor's name in a checkpoint file against its name in the model, by transformers' own conversion rules.

transformers 5 renames tensors while it loads them, and merges some (the experts of a mixture become one tensor).
"""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key


class Names:
    """Both directions for one model, which may lie on the meta device."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.mapping = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in self.mapping if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in self.mapping if isinstance(rule, WeightConverter)]
        self._state = model.state_dict()
        self._prefix = model.base_model_prefix

    def in_model(self, name: str) -> str | None:
        """The parameter or buffer that a tensor of a file belongs to, or None for one that the model does not have.

        A tensor that is split between several belongs to the first of them.
        """
        renamed = self._rename(name, self._renamings, self._converters)
        if renamed not in self._state and name in self._state:
            renamed = self._rename(name, [], [])
        return renamed if renamed in self._state else None

    @property
    def splits(self) -> bool:
        """Whether a tensor of a file may become several parameters."""
        return any(len(rule.target_patterns) > 1 for rule in self._converters)

    def merged(self, name: str) -> bool:
        """Whether a tensor of a file is split, merged or reshaped on its way into the model, not only renamed."""
        _, pattern = rename_source_key(name, self._renamings, self._converters, self._prefix, self._state)
        return pattern is not None

    def by_parameter(self, names: Iterable[str]) -> dict[str, list[str]]:
        """For each parameter or buffer that the files named serve, the names there, sorted."""
        found: dict[str, list[str]] = {}
        for name in sorted(names):
            if (target := self.in_model(name)) is not None:
                found.setdefault(target, []).append(name)
        return found

    def _rename(self, name: str, renamings: list[WeightRenaming], converters: list[WeightConverter]) -> str:
        renamed: str = rename_source_key(name, renamings, converters, self._prefix, self._state)[0]
        return renamed
