"""llama.cpp's C interface through whichever package brings the library, proved to fit before it is used.

xllamacpp's prebuilt extension exports the C interface beside its Python module; llama-cpp-python ships the library by
itself. Calling it in process gives the logits of whole prompts, which llama.cpp's server does not.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from awqbench.backends.llamacpp.structs import (
    CONTEXT_ANCHORS,
    CONTEXT_DEFAULTS,
    CONTEXT_FIELDS,
    MODEL_DEFAULTS,
    MODEL_FIELDS,
    WRITTEN_FOR,
    Batch,
    ContextParams,
    ModelParams,
)
from awqbench.errors import BackendUnavailable, unknown_choice

INSTALL = "awqbench env create llamacpp"
PROVIDERS = ("xllamacpp", "llama-cpp-python")
_MODULES = {"xllamacpp": "xllamacpp", "llama-cpp-python": "llama_cpp"}
# More than any version's structures take: what the library writes stays inside, whatever its layout.
_ROOM = 4096


@dataclass(frozen=True)
class Library:
    """A loaded llama.cpp: its functions, the structures that fit it, and who brought it."""

    provider: str
    version: str
    functions: ctypes.CDLL
    model_params: type[Any]
    context_params: type[Any]
    batch: type[Any]

    @property
    def llama_version(self) -> str:
        """llama.cpp's own version, as far as the library knows it."""
        return _text(self.functions, "llama_version") or "of unknown version"

    @property
    def system(self) -> dict[str, str]:
        """What the build uses of this machine: {"CPU": "AVX2 FMA ..."}, one entry a backend of ggml."""
        return parse_system_info(_text(self.functions, "llama_print_system_info"))

    @property
    def has_gpu(self) -> bool:
        """Whether the build can put layers on a GPU."""
        return bool(self.functions.llama_supports_gpu_offload())


def open_library(wanted: str | None = None) -> Library:
    """The library of the first provider that is installed, or of the one named.

    Raises UserError for a provider that does not exist, BackendUnavailable when none is installed, or when the
    library's layout is not the one known here.
    """
    if wanted is not None and wanted not in PROVIDERS:
        raise unknown_choice("provider of llama.cpp", wanted, PROVIDERS)
    candidates = [wanted] if wanted else list(PROVIDERS)
    for provider in candidates:
        spec = find_spec(_MODULES[provider])
        if spec and spec.origin:
            return _open(provider, Path(spec.origin).parent)
    raise BackendUnavailable(f"llama.cpp is not installed here (no {' and no '.join(candidates)}): {INSTALL}")


def _open(provider: str, folder: Path) -> Library:
    release = _release(provider)
    model_params: type[Any] = ModelParams
    context_params: type[Any] = ContextParams
    batch: type[Any] = Batch
    try:
        if provider == "xllamacpp":
            files = sorted(folder.glob("xllamacpp*.so"))
            if not files:
                raise BackendUnavailable(f"{provider} {release} brings no library in {folder}: {INSTALL}")
            functions = ctypes.CDLL(str(files[0]))
        else:
            module = import_module("llama_cpp.llama_cpp")
            functions = ctypes.CDLL(module._lib._name)
            model_params, context_params = module.llama_model_params, module.llama_context_params
            batch = module.llama_batch
    except (OSError, ImportError, RuntimeError) as error:
        raise BackendUnavailable(f"{provider} {release} does not load ({error}): {INSTALL}") from error
    library = Library(provider, release, functions, model_params, context_params, batch)
    _declare(library)
    _prove(library)
    functions.llama_backend_init()
    return library


def _release(provider: str) -> str:
    try:
        return version(provider)
    except PackageNotFoundError:
        return "of unknown version"


def _declare(library: Library) -> None:
    """Say what the functions take and give. A missing one means another llama.cpp than this binding knows."""
    model, context, vocabulary, memory = c_void_p, c_void_p, c_void_p, c_void_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "llama_backend_init": (None, []),
        "llama_log_set": (None, [c_void_p, c_void_p]),
        "llama_supports_gpu_offload": (c_bool, []),
        "llama_model_load_from_file": (model, [c_char_p, library.model_params]),
        "llama_model_free": (None, [model]),
        "llama_model_get_vocab": (vocabulary, [model]),
        "llama_model_n_ctx_train": (c_int32, [model]),
        "llama_model_size": (c_uint64, [model]),
        "llama_model_n_params": (c_uint64, [model]),
        "llama_model_has_encoder": (c_bool, [model]),
        "llama_model_has_decoder": (c_bool, [model]),
        "llama_model_meta_val_str": (c_int32, [model, c_char_p, c_char_p, c_size_t]),
        "llama_model_ftype": (c_int32, [model]),
        "llama_ftype_name": (c_char_p, [c_int32]),
        "llama_vocab_n_tokens": (c_int32, [vocabulary]),
        "llama_vocab_type": (c_int32, [vocabulary]),
        "llama_tokenize": (c_int32, [vocabulary, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
        "llama_detokenize": (
            c_int32,
            [vocabulary, POINTER(c_int32), c_int32, c_char_p, c_int32, c_bool, c_bool],
        ),
        "llama_init_from_model": (context, [model, library.context_params]),
        "llama_free": (None, [context]),
        "llama_n_ctx_seq": (c_uint32, [context]),
        "llama_n_batch": (c_uint32, [context]),
        "llama_n_ubatch": (c_uint32, [context]),
        "llama_n_seq_max": (c_uint32, [context]),
        "llama_n_threads": (c_int32, [context]),
        "llama_n_threads_batch": (c_int32, [context]),
        "llama_get_memory": (memory, [context]),
        "llama_memory_clear": (None, [memory, c_bool]),
        "llama_decode": (c_int32, [context, library.batch]),
        "llama_get_logits": (POINTER(c_float), [context]),
        "llama_get_logits_ith": (POINTER(c_float), [context, c_int32]),
        "llama_batch_init": (library.batch, [c_int32, c_int32, c_int32]),
        "llama_batch_free": (None, [library.batch]),
        "llama_model_default_params": (library.model_params, []),
        "llama_context_default_params": (library.context_params, []),
    }
    for name, (result, arguments) in signatures.items():
        try:
            function = getattr(library.functions, name)
        except AttributeError:
            raise _misfit(library, f"it has no {name}") from None
        function.restype, function.argtypes = result, arguments


def _prove(library: Library) -> None:
    """Compare the defaults that the library writes with what its version is known to write. Raises BackendUnavailable.

    A field too many or too few moves everything behind it; so both ends, all between and the size are looked at.
    """
    ours = library.context_params is ContextParams
    for name, structure, defaults in (
        ("llama_model_default_params", library.model_params, MODEL_DEFAULTS if ours else {"n_gpu_layers": None}),
        ("llama_context_default_params", library.context_params, CONTEXT_DEFAULTS if ours else CONTEXT_ANCHORS),
    ):
        problem = compare_defaults(_defaults(library.functions, name, structure), defaults, all_fields=ours)
        written = _written(library.functions, name)
        last = getattr(structure, structure._fields_[-1][0])
        if written is not None and not last.offset < written <= ctypes.sizeof(structure):
            problem = problem or f"{written} bytes are written where {ctypes.sizeof(structure)} are known"
        if problem:
            raise _misfit(library, f"{name}: {problem}")
    for structure, fields in ((library.model_params, MODEL_FIELDS), (library.context_params, CONTEXT_FIELDS)):
        missing = set(fields) - {name for name, *_ in structure._fields_}
        if missing:
            raise _misfit(library, f"{structure.__name__} has no {min(missing)}")
    batch = library.functions.llama_batch_init(3, 0, 1)
    arrays = [bool(getattr(batch, name)) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")]
    if batch.n_tokens != 0 or arrays != [True, False, True, True, True, True]:
        raise _misfit(library, "llama_batch_init gives another structure")
    library.functions.llama_batch_free(batch)


def compare_defaults(found: Any, expected: Mapping[str, Any], all_fields: bool) -> str:
    """What is wrong with a structure of defaults, or "". With `all_fields` those not named must be zero."""
    for name, *_ in found._fields_:
        if name not in expected and not all_fields:
            continue
        value, wanted = getattr(found, name), expected.get(name)
        if wanted is None and not all_fields:
            continue
        if (value or 0) != (wanted or 0):
            return f"{name} is {value!r}, expected {wanted or 0!r}"
    return ""


def parse_system_info(text: str) -> dict[str, str]:
    """`"CPU : AVX2 = 1 | FMA = 1 | CUDA : ARCHS = 800 | "` -> `{"CPU": "AVX2 FMA", "CUDA": "ARCHS=800"}`."""
    found: dict[str, str] = {}
    device = "CPU"
    for part in filter(None, (part.strip() for part in text.split("|"))):
        if " : " in part:
            device, _, part = part.partition(" : ")
        name, _, value = (piece.strip() for piece in part.partition("="))
        if value not in ("", "0"):
            word = name if value == "1" else f"{name}={value}"
            found[device.strip()] = f"{found.get(device.strip(), '')} {word}".strip()
    return found


def _defaults(functions: ctypes.CDLL, name: str, structure: type[Any]) -> Any:
    """The structure that the library fills, read out of a larger one so that nothing is written past it."""
    roomy = type("Roomy", (ctypes.Structure,), {"_fields_": (("bytes", ctypes.c_ubyte * _ROOM),)})
    function = functions[name]  # a function object of its own: the declared one keeps its result
    function.restype = roomy
    return structure.from_buffer_copy(function())


def _written(functions: ctypes.CDLL, name: str) -> int | None:
    """Bytes that the library writes; None where the calling convention does not pass their address as an argument."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    buffer = (ctypes.c_ubyte * _ROOM)(*([0xA5] * _ROOM))
    function = functions[name]
    function.restype, function.argtypes = c_void_p, [c_void_p]
    function(buffer)
    return len(bytes(buffer).rstrip(b"\xa5"))


def _misfit(library: Library, problem: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"{library.provider} {library.version} (llama.cpp {library.llama_version}) is not the llama.cpp this was "
        f"written for, {WRITTEN_FOR}: {problem}. It would be guessing; {INSTALL} makes an environment that fits"
    )


def _text(functions: ctypes.CDLL, name: str) -> str:
    try:
        function = functions[name]
    except AttributeError:
        return ""
    function.restype = c_char_p
    return (function() or b"").decode(errors="replace")
