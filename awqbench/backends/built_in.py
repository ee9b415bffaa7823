"""The backend kinds of this package. Standard library only."""

from __future__ import annotations

from awqbench.backends.kind import Kind
from awqbench.backends.openai_settings import OPTIONS as OPENAI_OPTIONS

_TORCH = ("torch", "transformers")
_PACKED = "awqbench.backends.packed:PackedBackend"
BUILT_IN = (
    Kind(
        "reference",
        "awqbench.backends.reference:ReferenceBackend",
        "the unquantized model in transformers",
        weights="model",
        modules=_TORCH,
        distributions=_TORCH,
    ),
    *(
        Kind(method, _PACKED, f"4-bit weights made by {how}", weights="made", modules=_TORCH, distributions=_TORCH)
        for method, how in {
            "awq": "AWQ",
            "rtn": "rounding to nearest",
            "gptq": "error-compensated rounding",
            "awq+gptq": "AWQ and error-compensated rounding",
        }.items()
    ),
    Kind(
        "llamacpp",
        "awqbench.backends.llamacpp:LlamaCppBackend",
        "llama.cpp on a GGUF file",
        weights="gguf",
        engine="llama.cpp",
        modules=("xllamacpp|llama_cpp",),
        distributions=("xllamacpp", "llama-cpp-python"),
        environment="llamacpp",
        options={
            "gguf": "how weights are exported: blocks (the same integers), f16, f32 or q8_0",
            "provider": "xllamacpp or llama_cpp, where both are installed",
            "gpu_layers": "layers on the GPU (-1: all)",
            "flash_attention": "auto, on or off",
            "kv_type": "type of the key-value cache: f16 (llama.cpp's own default) or f32",
            "context": "positions, when fewer than the model's are wanted",
            "batch_tokens": "tokens of one pass",
            "mmap": "map the file instead of reading it",
        },
        weight_options=("gguf",),
    ),
    Kind(
        "openai",
        "awqbench.backends.openai:OpenAIBackend",
        "a server that speaks OpenAI's completions protocol: vLLM, llama.cpp, SGLang, TensorRT-LLM and others",
        weights="server",
        engine="openai",
        options=OPENAI_OPTIONS,
        weight_options=("base_url", "model"),
    ),
)
