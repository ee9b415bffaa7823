import gguf
import pytest

from awqbench.errors import BackendUnavailable
from awqbench.formats.gguf import native
from awqbench.formats.gguf.export import export_gguf


def test_without_its_quantizer_nothing_is_written(made, tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(native, "import_module", missing)
    with pytest.raises(
        BackendUnavailable, match=r"q4_k_m is made by llama.cpp's own quantizer.*llama-quantize .* Q4_K_M"
    ):
        export_gguf(made("llama", None).folder, tmp_path / "x.gguf", kind="q4_k_m")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_mixture_of_llamacpps_own(tiny_llama, tmp_path):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: no quantizer of llama.cpp's own")
    report = export_gguf(tiny_llama, tmp_path / "x.gguf", kind="q4_k_m")
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    assert reader.get_field("general.file_type").contents() == gguf.LlamaFileType.MOSTLY_Q4_K_M
    assert report["types"]["F32"] == 5  # the norms
    assert report["bytes"] == (tmp_path / "x.gguf").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]
