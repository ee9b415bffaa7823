"""A GGUF file and a context of llama.cpp, as objects that take and give numpy arrays."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awqbench.backends.base import FloatArray, IntArray
from awqbench.backends.llamacpp.library import Library
from awqbench.backends.llamacpp.log import Log
from awqbench.errors import BackendUnavailable, UserError

# Types of the key-value cache by name, with ggml's numbers.
KV_TYPES = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2}
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
# llama.cpp's bound on sequences in one context.
MAX_SEQUENCES = 256
_LOAD_MODES = {True: 1, False: 0}  # memory-mapped, read
_SPLIT_NONE = 0


class Model:
    """The weights and vocabulary of one file."""

    def __init__(
        self, library: Library, log: Log, path: Path, *, gpu_layers: int, main_gpu: int | None = None,
        mmap: bool | None = None,
    ) -> None:  # fmt: skip
        """Load `path`. Raises UserError when llama.cpp cannot, with its own reason."""
        self.library, self.log, self.path = library, log, path
        self.functions = library.functions
        check_is_gguf(path)
        params = self.functions.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if main_gpu is not None:
            params.main_gpu, params.split_mode = main_gpu, _SPLIT_NONE
        if mmap is not None:
            params.load_mode = _LOAD_MODES[mmap]
        log.clear()
        self.handle: Any = self.functions.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            reason = log.reason().removeprefix("error loading model: ")
            raise UserError(f"llama.cpp cannot load {path}: {reason or 'it does not say why'}")
        self.buffers = log.buffers()
        self._vocabulary = self.functions.llama_model_get_vocab(self.handle)

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary, padding included: the length of a row of logits."""
        return int(self.functions.llama_vocab_n_tokens(self._vocabulary))

    @property
    def train_context(self) -> int:
        """Positions that the model was made for."""
        return int(self.functions.llama_model_n_ctx_train(self.handle))

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return int(self.functions.llama_model_size(self.handle))

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self.functions.llama_model_n_params(self.handle))

    @property
    def is_decoder_only(self) -> bool:
        """Whether token ids alone give next-token logits."""
        has = self.functions
        return bool(has.llama_model_has_decoder(self.handle)) and not has.llama_model_has_encoder(self.handle)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the file says how text becomes token ids."""
        return int(self.functions.llama_vocab_type(self._vocabulary)) != 0

    def metadata(self, key: str) -> str | None:
        """One value of the file's metadata as text; None where the file lacks it."""
        buffer = ctypes.create_string_buffer(4096)
        length = self.functions.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if length >= 0 else None

    @property
    def file_type(self) -> str:
        """What most weights are stored as, in llama.cpp's words: "F16", "Q4_K - Medium"."""
        named = self.functions.llama_ftype_name(self.functions.llama_model_ftype(self.handle)) or b""
        return re.sub(r"\(guessed\)", "", named.decode(errors="replace")).strip()

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids of `text`; `special` adds what the file asks for (BOS, EOS). Special tokens in the text are read
        as such, as Hugging Face tokenizers do."""
        data = text.encode()
        room = len(data) + 16
        while True:
            ids = (ctypes.c_int32 * room)()
            count = self.functions.llama_tokenize(self._vocabulary, data, len(data), ids, room, special, True)
            if count >= 0:
                return list(ids[:count])
            room = -count

    def text(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens; bytes that are no UTF-8 as U+FFFD."""
        given = (ctypes.c_int32 * len(ids))(*ids)
        room = 8 * len(ids) + 16
        while True:
            data = ctypes.create_string_buffer(room)
            count = self.functions.llama_detokenize(self._vocabulary, given, len(ids), data, room, False, False)
            if count >= 0:
                return data.raw[:count].decode(errors="replace")
            room = -count

    def close(self) -> None:
        """Free the weights."""
        if self.handle:
            self.functions.llama_model_free(self.handle)
            self.handle = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What a context has room for. `length` positions for each of `sequences`; `unified`: one cache for all of them,
    in which sequences take what they need, so that `length` is what they have together."""

    sequences: int
    length: int
    unified: bool

    def serves(self, other: Shape) -> bool:
        """Whether a context of this shape does for another one."""
        return self.unified == other.unified and self.sequences == other.sequences and self.length >= other.length


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """What does not depend on what is asked."""

    threads: int
    batch_tokens: int
    flash_attention: int
    kv_type: str
    on_gpu: bool


class Context:
    """Key-value cache and compute buffers."""

    def __init__(self, model: Model, shape: Shape, settings: ContextSettings) -> None:
        """Raises UserError when there is not enough memory, BackendUnavailable when what was asked did not arrive."""
        self.model, self.shape, self.settings = model, shape, settings
        functions = self.functions = model.functions
        params = functions.llama_context_default_params()
        params.n_ctx = shape.length if shape.unified else shape.length * shape.sequences
        # llama.cpp aborts the process where a pass cannot hold a token of every sequence.
        self.batch_tokens = min(max(settings.batch_tokens, shape.sequences), params.n_ctx)
        params.n_batch = params.n_ubatch = self.batch_tokens
        params.n_seq_max = shape.sequences
        params.n_threads = params.n_threads_batch = settings.threads
        params.flash_attn_type = settings.flash_attention
        params.type_k = params.type_v = KV_TYPES[settings.kv_type]
        params.offload_kqv = params.op_offload = settings.on_gpu
        params.kv_unified = shape.unified
        # Whole prompts are scored: as many logits as fit a pass. Generation wants a row of them for each sequence.
        params.n_outputs_max = 0 if shape.unified else shape.sequences
        params.n_outputs_max_per_seq = 0
        model.log.clear()
        self.handle: Any = functions.llama_init_from_model(model.handle, params)
        if not self.handle:
            reason = model.log.reason() or "it does not say why"
            raise UserError(f"llama.cpp cannot make a context of {shape.sequences} x {shape.length} tokens: {reason}")
        arrived = {
            "n_batch": functions.llama_n_batch(self.handle),
            "n_ubatch": functions.llama_n_ubatch(self.handle),
            "n_seq_max": functions.llama_n_seq_max(self.handle),
            "n_threads": functions.llama_n_threads(self.handle),
            "n_threads_batch": functions.llama_n_threads_batch(self.handle),
        }
        asked = {name: getattr(params, name) for name in arrived}
        # A sequence may take the whole cache only where it is unified: which tells where that flag, among the last
        # fields of the structure, arrived.
        arrived["n_ctx_seq"], asked["n_ctx_seq"] = functions.llama_n_ctx_seq(self.handle), shape.length
        said = model.log.cache_types()
        if said:
            arrived["kv_type"], asked["kv_type"] = said, {settings.kv_type}
        wrong = [f"{name} is {value}, not {asked[name]}" for name, value in arrived.items() if value != asked[name]]
        if wrong:
            self.close()
            raise BackendUnavailable(f"llama.cpp did not take what was asked of it: {', '.join(wrong)}")
        self._memory = functions.llama_get_memory(self.handle)
        self.vocab_size = model.vocab_size

    def clear(self) -> None:
        """Forget all sequences."""
        if self._memory:
            self.functions.llama_memory_clear(self._memory, False)

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> FloatArray:
        """Run at most `batch_tokens` tokens, each at a position of a sequence.

        Returns logits float32 [number wanted, vocabulary], in the order of the tokens. It is llama.cpp's own memory,
        valid until the next call. Raises UserError when the cache is full.
        """
        token: IntArray = np.asarray(tokens, np.int32)
        position: IntArray = np.asarray(positions, np.int32)
        sequence: IntArray = np.asarray(sequences, np.int32)
        output: NDArray[np.int8] = np.asarray(wanted, np.int8)
        one = np.ones(len(token), np.int32)
        where = sequence.ctypes.data + sequence.itemsize * np.arange(len(sequence), dtype=np.uintp)
        batch = self.model.library.batch(n_tokens=len(token))
        for name, array in (
            ("token", token), ("pos", position), ("n_seq_id", one), ("seq_id", where), ("logits", output),
        ):  # fmt: skip
            kind = next(kind for field, kind in batch._fields_ if field == name)
            setattr(batch, name, ctypes.cast(array.ctypes.data, kind))
        status = self.functions.llama_decode(self.handle, batch)
        if status == 1:
            raise UserError(f"{len(token)} more tokens do not fit a context of {self.shape.length}")
        if status != 0:
            raise RuntimeError(f"llama_decode failed with status {status}: {self.model.log.reason()}")
        rows = int(output.sum())
        if not rows:
            return np.empty((0, self.vocab_size), np.float32)
        first = self.functions.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(first, (rows, self.vocab_size))

    def close(self) -> None:
        """Free the cache and the buffers."""
        if self.handle:
            self.functions.llama_free(self.handle)
            self.handle = None


def check_is_gguf(path: Path) -> None:
    """Raises UserError naming a file that is missing or is no GGUF."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except IsADirectoryError:
        raise UserError(
            f"{path} is a folder: llama.cpp runs a GGUF file (awqbench export --to gguf makes one)"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if start != b"GGUF":
        raise UserError(f"{path} is no GGUF file: it starts with {start!r}")
