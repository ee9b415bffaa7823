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
            "gguf": "what an exported file holds: blocks (the same integers; the default), f16, f32, q8_0, or what "
            "llama.cpp's own quantizer makes where llama-cpp-python is installed: q3_k_m, q4_k_s, q4_k_m, q5_k_m, q6_k",
            "provider": "xllamacpp or llama-cpp-python, where both are installed",
            "gpu_layers": "layers on the GPU; -1, all, is the default where the build has one and device is not cpu",
            "flash_attention": "auto (the default), on or off",
            "kv_type": "type of the key-value cache: f16 (the default, as llama.cpp's own), f32 (without flash "
            "attention), bf16, q8_0 or q4_0",
            "context": "positions, when fewer than the model's are wanted",
            "batch_tokens": "tokens of one pass (512; fewer where a large vocabulary's logits would pass 256 MiB)",
            "mmap": "true: map the file, false: read it; llama.cpp chooses by default",
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
