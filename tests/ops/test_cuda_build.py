import ctypes
import json
import logging
import os
import re
import shutil
import subprocess
import sys

import pytest

from awqbench.errors import BackendUnavailable
from awqbench.ops import cuda_binding, cuda_build, cuda_interface
from awqbench.resources import content

CUDA = content("kernels") / "cuda"
NO_NVCC = cuda_build.nvcc() is None
SAID = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN8awqbench4gemmILi1EEEvPKvx' for 'sm_90a'
ptxas info    : Function properties for _ZN8awqbench4gemmILi1EEEvPKvx
    24 bytes stack frame, 8 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 24 bytes cumulative stack size, 9216 bytes smem, 400 bytes cmem[0]
ptxas info    : Compile time = 7.763 ms
ptxas info    : Compiling entry function 'plain' for 'sm_80'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 376 bytes cmem[0]
"""


@pytest.fixture(scope="module", autouse=True)
def architectures():
    """One, unless the environment names others: all of them are four minutes of processor time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cuda_build.CHOSEN, os.environ.get(cuda_build.CHOSEN, "90a"))
        yield set(os.environ[cuda_build.CHOSEN].split(","))


def needs_nvcc(test):
    """The first of these tests compiles for all of them: minutes on a machine that is busy."""
    for mark in (pytest.mark.skipif(NO_NVCC, reason="no nvcc"), pytest.mark.timeout(900), pytest.mark.slow):
        test = mark(test)
    return test


@pytest.fixture
def forget(monkeypatch):
    """Nothing remembered of the library that other tests use, before and after."""
    monkeypatch.delenv(cuda_build.OVERRIDE, raising=False)
    # Not cleared, since another compilation costs seconds: put aside.
    monkeypatch.setattr(cuda_build, "_located", cuda_build._located.__wrapped__)
    for function in (cuda_interface.functions, cuda_binding._unavailable):
        function.cache_clear()
    yield
    for function in (cuda_interface.functions, cuda_binding._unavailable):
        function.cache_clear()


def test_the_compiler_s_report_is_read():
    first, second = cuda_build.parse_report(SAID.splitlines(), "gemm.cu")
    name = "gemm<1>" if shutil.which("c++filt") else "_ZN8awqbench4gemmILi1EEEvPKvx"
    assert first == cuda_build.Resources("gemm.cu", name, "90a", 40, 9216, 24, 8, 16)
    assert second == cuda_build.Resources("gemm.cu", "plain", "80", 8, 0, 0, 0, 0)


def test_names_are_shortened_to_what_tells_kernels_apart():
    long = "void awqbench::gemm_kernel<0, awqbench::Shape<(int)4, (bool)1, awqbench::Ring<3> > >(awqbench::Problem)"
    assert cuda_build._short(long) == "gemm_kernel<0, Shape<4, 1, Ring<3> > >"
    assert cuda_build._short("awqbench::(anonymous namespace)::plain(int (*)(int))") == "plain"
    assert cuda_build._short("_Zunknown") == "_Zunknown"


def test_older_compilers_leave_out_what_they_do_not_know(monkeypatch):
    monkeypatch.delenv(cuda_build.CHOSEN)
    assert [len(cuda_build.targets(version)) for version in [(11, 8), (12, 4), (12, 8), (13, 0)]] == [2, 3, 4, 4]
    assert "-gencode=arch=compute_90a,code=sm_90a" in cuda_build.targets((12, 4))
    assert cuda_build.targets((13, 0))[-1] == "-gencode=arch=compute_80,code=compute_80"


def test_architectures_can_be_chosen(monkeypatch):
    monkeypatch.setenv(cuda_build.CHOSEN, "120, 80")
    assert [option[-6:] for option in cuda_build.targets((13, 0))] == ["sm_120", "=sm_80"]
    with pytest.raises(BackendUnavailable, match=r"ARCHITECTURES: '120' \(allowed with this nvcc: 80, 90a\)"):
        cuda_build.targets((12, 4))
    monkeypatch.setenv(cuda_build.CHOSEN, "")
    assert len(cuda_build.targets((13, 0))) == 4


@needs_nvcc
def test_every_kernel_compiles_for_every_target_without_spills_or_a_stack(architectures):
    kernels = cuda_build.library() and cuda_build.resources()
    assert kernels
    assert [entry for entry in kernels if entry.stack or entry.spill_stores or entry.spill_loads] == []
    compiled = {}
    for entry in kernels:
        compiled.setdefault(entry.source, set()).add(entry.architecture)
        assert 0 < entry.registers <= 255
    assert "dequantize.cu" in compiled
    assert {frozenset(found) for found in compiled.values()} == {frozenset(architectures)}


@needs_nvcc
@pytest.mark.skipif(not any(CUDA.glob("gemm*.cu")), reason="no GEMM kernel in this checkout")
def test_every_declared_function_is_there():
    declared = re.findall(r"^AWQBENCH_API[^(]*\b(awqbench_\w+)\(", (CUDA / "w4a16.h").read_text(), re.MULTILINE)
    assert {"awqbench_cuda_gemm", "awqbench_cuda_prefill", "awqbench_cuda_version"} < set(declared)
    assert [name for name in declared if not hasattr(cuda_build.library(), name)] == []


@needs_nvcc
def test_the_cuda_runtime_is_hidden_and_errors_have_names():
    loaded = cuda_build.library()
    assert loaded.awqbench_cuda_version() == cuda_build.VERSION
    name = loaded.awqbench_cuda_error
    name.restype = ctypes.c_char_p
    assert name(1) == b"invalid argument"
    with pytest.raises(AttributeError):
        _ = loaded.cudaLaunchKernel


@needs_nvcc
def test_what_the_layout_does_not_hold_is_an_error_before_anything_runs():
    """No GPU is needed to refuse."""
    dequantize = cuda_build.library().awqbench_cuda_dequantize
    dequantize.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 3 + [ctypes.c_int, ctypes.c_void_p]
    invalid = 1
    assert dequantize(16, 16, 16, 64, 96, 48, 0, None) == invalid  # the group
    assert dequantize(16, 16, 16, 64, 64, 64, 2, None) == invalid  # the type
    assert dequantize(16, 16, 24, 64, 64, 64, 0, None) == invalid  # 16-byte stores
    assert dequantize(16, 16, 16, 0, 64, 64, 0, None) == 0


@needs_nvcc
def test_a_library_is_built_ahead_and_used_where_there_is_no_compiler(tmp_path, forget, monkeypatch, capsys):
    """The compiler's work is shared with the other tests: here it copies what they built."""
    built, report = cuda_build.library_path(), cuda_build._report_of(cuda_build.library_path())

    def copy(program, target):
        shutil.copyfile(built, target)
        shutil.copyfile(report, cuda_build._report_of(target))
        return ctypes.CDLL(str(target))

    monkeypatch.setattr(cuda_build, "compile_library", copy)
    out = tmp_path / "there" / "kernels.so"
    assert cuda_build.main(["--out", str(out)]) == 0
    assert "sm_90a" in capsys.readouterr().out
    assert sorted(path.name for path in out.parent.iterdir()) == ["kernels.so", "kernels.so.json"]
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(cuda_build.OVERRIDE, str(out))
    assert cuda_build.library_path() == out
    assert cuda_build.library().awqbench_cuda_version() == cuda_build.VERSION
    assert [entry.kernel for entry in cuda_build.resources()] == [
        entry["kernel"] for entry in json.loads(report.read_text())["kernels"]
    ]


@pytest.mark.usefixtures("forget")
def test_without_nvcc_the_message_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cuda_build, "nvcc", lambda: None)
    with pytest.raises(BackendUnavailable, match=r"no nvcc.*pip install nvidia-cuda-nvcc.*AWQBENCH_CUDA_KERNELS"):
        cuda_build.library()
    assert cuda_build.main(["--out", str(tmp_path / "x.so")]) == 2
    assert "pip install" in capsys.readouterr().err


@pytest.mark.usefixtures("forget")
def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    broken = tmp_path / "bin" / "nvcc"
    broken.parent.mkdir()
    broken.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && echo "Cuda compilation tools, release 13.0, V13.0.88" && exit 0\n'
        'echo "a.cu(3): error: no such thing" >&2; echo "1 error detected" >&2; exit 2\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("AWQBENCH_CACHE", str(tmp_path / "cache"))
    assert cuda_build.nvcc() == str(broken)
    with pytest.raises(BackendUnavailable, match=r"a\.cu\(3\): error: no such thing"):
        cuda_build.library()
    assert list((tmp_path / "cache" / "kernels").iterdir()) == []
    broken.write_text("#!/bin/sh\necho nothing\n")
    with pytest.raises(BackendUnavailable, match="names no release"):
        cuda_build.library()


@pytest.mark.usefixtures("forget")
def test_the_identity_follows_what_would_be_loaded_and_builds_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("AWQBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda_build, "nvcc", lambda: None)
    assert cuda_build.identity() == "no nvcc"
    monkeypatch.setattr(cuda_build, "nvcc", lambda: "nvcc")
    monkeypatch.setattr(cuda_build, "version_of", lambda program: (13, 0))
    own = cuda_build.identity()
    monkeypatch.setattr(cuda_build, "version_of", lambda program: (12, 8))
    assert cuda_build.identity() != own
    given = tmp_path / "given.so"
    monkeypatch.setenv(cuda_build.OVERRIDE, str(given))
    assert "given.so" in cuda_build.identity()  # is not there
    given.write_bytes(b"one")
    first = cuda_build.identity()
    given.write_bytes(b"two")
    assert len({own, first, cuda_build.identity()}) == 3
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("forget")
def test_a_library_that_is_not_ours_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(cuda_build.OVERRIDE, str(tmp_path / "gone.so"))
    with pytest.raises(BackendUnavailable, match=r"AWQBENCH_CUDA_KERNELS: .*gone\.so"):
        cuda_build.library()
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    for text, message in [
        ("", "no library of awqbench"),
        ('extern "C" int awqbench_cuda_version() { return 999; }', "interface 999.*build it again"),
    ]:
        source, built = tmp_path / "other.cpp", tmp_path / f"other{len(text)}.so"
        source.write_text(text)
        subprocess.run([compiler, "-shared", "-fPIC", source, "-o", built], check=True)
        monkeypatch.setenv(cuda_build.OVERRIDE, str(built))
        with pytest.raises(BackendUnavailable, match=message):
            cuda_build.library()


def test_importing_compiles_and_loads_nothing(tmp_path):
    code = "import awqbench.ops; from awqbench.ops import cuda_build as b; assert b._located.cache_info().currsize == 0"
    environment = {"AWQBENCH_CACHE": str(tmp_path), "PATH": ""}
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("forget")
def test_the_layer_says_once_why_it_falls_back(monkeypatch, caplog):
    """A GPU is faked, its compiler is absent."""
    monkeypatch.setattr(cuda_build, "nvcc", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda index: (9, 0))
    with caplog.at_level(logging.WARNING, "awqbench"):
        reasons = [cuda_binding._unavailable(0) for _ in range(3)]
    assert len({*reasons}) == 1
    assert "no nvcc" in reasons[0]
    assert len(caplog.records) == 1
    cuda_binding._unavailable.cache_clear()
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda index: (7, 5))
    assert "compute capability 7.5" in cuda_binding._unavailable(0)
