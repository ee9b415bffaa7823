"""Types that only llama.cpp's own quantizer makes, such as Q4_K_M; it comes with llama-cpp-python."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from awqbench.cores import usable_cores
from awqbench.errors import BackendUnavailable, UserError

# llama.cpp's numbers of the mixtures (enum llama_ftype).
NATIVE = {"q3_k_m": 12, "q4_k_s": 14, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18}


def quantizer(kind: str) -> Any:
    """The module that quantizes. Raises BackendUnavailable where it is not installed, saying how to do without."""
    try:
        return import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError):
        raise BackendUnavailable(
            f"{kind} is made by llama.cpp's own quantizer, which is not installed: pip install llama-cpp-python (it "
            f"compiles for a while), or give a file made by `llama-quantize model-f32.gguf model.gguf {kind.upper()}`"
        ) from None


def quantize_file(source: Path, out: Path, kind: str) -> None:
    """Make `out` from the unquantized GGUF `source`. Rows that 256 does not divide get another type, as llama.cpp picks
    it. Raises UserError when it fails, BackendUnavailable without llama-cpp-python."""
    module = quantizer(kind)
    params = module.llama_model_quantize_default_params()
    params.ftype = NATIVE[kind]
    params.nthread = usable_cores()
    if module.llama_model_quantize(os.fsencode(source), os.fsencode(out), params) != 0:
        raise UserError(f"llama.cpp's quantizer cannot make {kind} from {source}; its log says why")
