"""The weights of a model folder, read from its files part by part: never the whole model in memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from awqbench.errors import UserError
from awqbench.formats.shards import Shards
from awqbench.modeling.convert import load_converted
from awqbench.modeling.names import Names
from awqbench.modeling.pickles import Pickles, pickled_files


class Weights:
    """Fills parts of a model skeleton from the files of its folder.

    Files that are pickles can run code when they are loaded: they are refused unless `allow_pickle` is set, and then
    only tensors are unpickled. Raises UserError naming a file that is missing, truncated or corrupt, and for a folder
    that lacks weights of the model.
    """

    def __init__(self, folder: Path, model: PreTrainedModel, *, allow_pickle: bool = False) -> None:
        self.folder, self.model = Path(folder), model
        self.files: Shards | Pickles = Shards(self.folder)
        if pickled := pickled_files(self.folder):
            if not allow_pickle:
                raise UserError(
                    f"{pickled[0]} is a pickle, which may run code when it is loaded"
                    " (allowed: safetensors, or --allow-pickle to read tensors from it)"
                )
            self.files = Pickles(pickled)
        self.names = Names(model)
        self.buffers = {name for name, _ in model.named_buffers()}
        self.sources = self.names.by_parameter(self.files.entries)
        self._refuse_missing()

    def bytes_of(self, module: str) -> int:
        """Bytes in the files of everything below `module`."""
        names = (name for target, names in self.sources.items() if _below(target, module) for name in names)
        return sum(self.files.entries[name].nbytes for name in names)

    def load(self, module: str, device: str | torch.device = "cpu", *, recurse: bool = True) -> None:
        """Give the parameters below `module` their weights, in the skeleton's dtype.

        With `recurse` False only those of the module itself.
        """
        wanted = [target for target in self.sources if _below(target, module)]
        if not recurse:
            wanted = [target for target in wanted if target.rpartition(".")[0] == module]
        self._load(wanted, device)
        for owner in self.model.get_submodule(module).modules():
            for name, buffer in owner.named_buffers(recurse=False):
                setattr(owner, name, buffer.to(device))
        tied = getattr(self.model, "all_tied_weights_keys", {})
        parameters = self.model.get_submodule(module).named_parameters(module, recurse)
        self._refuse(name for name, parameter in parameters if parameter.is_meta and name not in tied)

    def release(self, module: str) -> None:
        """Put the parameters below `module` back on the meta device, and unmap the files.

        Buffers stay: files may lack them.
        """
        for owner in self.model.get_submodule(module).modules():
            for name, parameter in owner.named_parameters(recurse=False):
                owner.register_parameter(name, nn.Parameter(parameter.to("meta"), requires_grad=False))
        self.close()

    def close(self) -> None:
        """Unmap the files: mapped pages that were read count as this process's memory."""
        self.files.close()

    def original(self, target: str) -> Tensor | None:
        """A parameter as its file has it; None where it's merged from several tensors, or split from one."""
        names = self.sources.get(target, [])
        if len(names) != 1 or self.names.merged(names[0]):
            return None
        return self.files.tensor(names[0])

    def _load(self, wanted: Iterable[str], device: str | torch.device) -> None:
        names = [name for target in wanted for name in self.sources[target]]
        try:
            load_converted(self.model, self.names, names, self.files.tensor, device)
        except UserError as error:
            raise UserError(f"cannot load {self.folder}: {error}") from None

    def _refuse_missing(self) -> None:
        """Every parameter must have a source, or be tied to one that has. Splits are found out when they are loaded."""
        if self.names.splits:
            return
        tied = getattr(self.model, "all_tied_weights_keys", {})
        served = set(self.sources)
        served |= {one for pair in tied.items() for one in pair if served & set(pair)}
        self._refuse(name for name, _ in self.model.named_parameters(remove_duplicate=False) if name not in served)

    def _refuse(self, missing: Iterable[str]) -> None:
        names = sorted(missing)
        if names:
            raise UserError(f"the model in {self.folder} lacks {len(names)} of its weights: {', '.join(names[:3])}")


def _below(target: str, module: str) -> bool:
    return not module or target == module or target.startswith(f"{module}.")
