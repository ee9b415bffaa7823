"""The binding refuses what it does not know, instead of guessing."""

import ctypes

import pytest

from awqbench.backends.llamacpp import library as llamacpp_library
from awqbench.backends.llamacpp import structs as llamacpp_structs
from awqbench.backends.llamacpp.library import Library, compare_defaults, open_library, parse_system_info
from awqbench.backends.llamacpp.log import Log
from awqbench.backends.llamacpp.structs import CONTEXT_DEFAULTS, Batch, ContextParams, ModelParams
from awqbench.errors import BackendUnavailable, UserError


def defaults():
    params = ContextParams()
    for name, value in CONTEXT_DEFAULTS.items():
        setattr(params, name, value)
    return params


def test_known_defaults_pass():
    assert compare_defaults(defaults(), CONTEXT_DEFAULTS, all_fields=True) == ""


@pytest.mark.parametrize("offset", range(0, ctypes.sizeof(ContextParams) - 8, 8))
def test_eight_bytes_more_or_less_are_noticed_wherever_they_are(offset):
    """Except where everything behind them is zero anyway, after the last flag."""
    raw = bytes(defaults())
    flags = ContextParams.embeddings.offset
    longer = raw[:offset] + bytes(8) + raw[offset:]
    assert bool(compare_defaults(ContextParams.from_buffer_copy(longer), CONTEXT_DEFAULTS, True)) == (offset <= flags)
    shorter = raw[:offset] + raw[offset + 8 :] + bytes(8)
    assert bool(compare_defaults(ContextParams.from_buffer_copy(shorter), CONTEXT_DEFAULTS, True)) == (offset <= flags)


def test_no_provider(monkeypatch):
    monkeypatch.setattr(llamacpp_library, "find_spec", lambda name: None)
    with pytest.raises(
        BackendUnavailable, match=r"no xllamacpp and no llama-cpp-python.: awqbench env create llamacpp"
    ):
        open_library()
    with pytest.raises(BackendUnavailable, match="no llama-cpp-python"):
        open_library("llama-cpp-python")
    with pytest.raises(UserError, match=r"llama.cpp 'ollama'.* .allowed: llama-cpp-python, xllamacpp"):
        open_library("ollama")


def test_a_library_without_the_functions():
    with pytest.raises(BackendUnavailable, match="it has no llama_backend_init"):
        llamacpp_library._declare(Library("some", "1.0", ctypes.CDLL(None), ModelParams, ContextParams, Batch))


@pytest.mark.parametrize(("table", "field"), [("CONTEXT_DEFAULTS", "n_batch"), ("MODEL_DEFAULTS", "n_gpu_layers")])
def test_another_layout_names_both_versions(monkeypatch, table, field):
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    monkeypatch.setitem(getattr(llamacpp_structs, table), field, 4096)
    with pytest.raises(BackendUnavailable, match=rf"xllamacpp 20\d\d.* written for, llama.cpp 0.*: {field} is .* 4096"):
        open_library("xllamacpp")


def test_a_structure_that_is_too_short(monkeypatch):
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")

    class Short(ctypes.Structure):
        _fields_ = ContextParams._fields_[:-1]

    library = open_library("xllamacpp")
    if llamacpp_library._written(library.functions, "llama_context_default_params") is None:
        pytest.skip("this machine's calling convention does not tell how much is written")
    short = Library("xllamacpp", "1", library.functions, ModelParams, Short, Batch)
    with pytest.raises(BackendUnavailable, match="bytes are written where"):
        llamacpp_library._prove(short)


def test_structures_without_a_field_that_is_set():
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")

    class Older(ctypes.Structure):
        _fields_ = [("renamed" if name == "kv_unified" else name, kind) for name, kind in ContextParams._fields_]

    older = Library("llama-cpp-python", "0.1", open_library("xllamacpp").functions, ModelParams, Older, Batch)
    with pytest.raises(BackendUnavailable, match="Older has no kv_unified"):
        llamacpp_library._prove(older)


def test_system_info():
    said = "CUDA : ARCHS = 800,900 | USE_GRAPHS = 1 | CPU : AVX2 = 1 | AVX512 = 0 | FMA = 1 | "
    assert parse_system_info(said) == {"CUDA": "ARCHS=800,900 USE_GRAPHS", "CPU": "AVX2 FMA"}
    assert parse_system_info("") == {}


def test_the_log_keeps_reasons_and_prints_warnings_only(capsys):
    log = Log()
    for level, text in (
        (1, "chatter\n"), (2, "load:   CPU_Mapped model buffer size =    86.50 MiB\n"), (2, "..."), (5, "...\n"),
        (2, "size = 1 MiB (512 cells, 30 layers), K (f16):    5.62 MiB, V (q8_0):    5.62 MiB\n"),
        (3, "careful\n"), (4, "load: no such "), (5, "thing\n"), (4, "load: later\n"), (2, "Flash Attention enabled\n"),
    ):  # fmt: skip
        log._receive(level, text.encode(), None)
    assert log.reason() == "no such"
    assert log.buffers() == {"CPU_Mapped": 86.5}
    assert log.cache_types() == {"f16", "q8_0"}
    assert log.flash_attention() == "enabled"
    assert capsys.readouterr().err.splitlines()[0] == "careful"
    assert all("chatter" not in line for _, line in log.lines)
    log.clear()
    assert (log.reason(), log.buffers(), log.flash_attention()) == ("", {}, None)
