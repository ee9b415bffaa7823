import logging
from pathlib import Path

import pytest
import torch

from awqbench.errors import BackendUnavailable
from awqbench.ops import QuantizedLinear, build, cpu

COMPILED = (build.library, cpu._functions, cpu._layer, cpu.unavailable)
needs_compiler = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")


@pytest.fixture
def kernel_name():
    """The file's name in a cache, which others have built: compiling takes 20 seconds of a processor."""
    return Path(build.library()._name).name


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A fresh cache folder, and nothing remembered of the library that other tests use."""
    monkeypatch.setenv("AWQBENCH_CACHE", str(tmp_path))
    for function in COMPILED:
        function.cache_clear()
    yield tmp_path / "kernels"
    for function in COMPILED:
        function.cache_clear()


def test_without_a_compiler_the_layer_falls_back_and_says_so_once(empty_cache, monkeypatch, caplog, make_quantized):
    monkeypatch.setenv("PATH", "")
    quantized = make_quantized(16, 64, 32)
    with caplog.at_level(logging.WARNING, "awqbench"):
        layers = [QuantizedLinear(quantized) for _ in range(3)]
    assert {layer.kernel for layer in layers} == {"dequantize"}
    assert len(caplog.records) == 1
    assert "no C++ compiler" in caplog.text
    x = torch.randn(3, 64)
    torch.testing.assert_close(layers[0](x), x @ quantized.dequantize().T)


def test_a_compiler_that_fails_is_named(empty_cache, tmp_path, monkeypatch):
    broken = tmp_path / "bin" / "c++"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'internal compiler error' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:/bin:/usr/bin")
    with pytest.raises(BackendUnavailable, match="internal compiler error"):
        build.library()
    assert list(empty_cache.iterdir()) == []


@needs_compiler
def test_a_cache_that_cannot_be_written(tmp_path, empty_cache, monkeypatch):
    (tmp_path / "kernels").write_text("a file where the folder should be")
    with pytest.raises(BackendUnavailable, match="cannot be built"):
        build.library()


@needs_compiler
def test_a_broken_file_is_built_again_and_a_good_one_is_not(kernel_name, empty_cache):
    built = empty_cache / kernel_name
    built.parent.mkdir()
    built.write_bytes(b"not a library")
    assert build.library().awqbench_w4a16_best_isa() >= 0
    assert list(empty_cache.iterdir()) == [built]
    first = built.stat().st_mtime_ns
    build.library.cache_clear()
    build.library()
    assert built.stat().st_mtime_ns == first
