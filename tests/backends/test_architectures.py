"""The engine serves causal LMs of many architectures: scores, and the decode path agrees with the prefill path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from awqbench.backends.torch_engine import TorchEngine

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GQA = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
EXPERTS = {**GQA, "moe_intermediate_size": 16}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GQA),
    "mistral": ("MistralConfig", GQA),
    "qwen2": ("Qwen2Config", GQA),
    "qwen3": ("Qwen3Config", {**GQA, "head_dim": 8}),
    "gemma2": ("Gemma2Config", {**GQA, "head_dim": 8}),
    "gemma3": ("Gemma3TextConfig", {**GQA, "head_dim": 8}),
    "phi3": ("Phi3Config", {**GQA, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    "gpt2": ("GPT2Config", {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt-neox": ("GPTNeoXConfig", {**SMALL, "intermediate_size": 64}),
    "opt": ("OPTConfig", {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "falcon": ("FalconConfig", {k: v for k, v in SMALL.items() if k != "max_position_embeddings"}),
    "bloom": ("BloomConfig", {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "starcoder2": ("Starcoder2Config", GQA),
    "olmo2": ("Olmo2Config", {**GQA, "pad_token_id": 0}),
    "cohere": ("CohereConfig", {**GQA, "pad_token_id": 0}),
    "granite": ("GraniteConfig", GQA),
    "mixtral": ("MixtralConfig", {**GQA, "num_local_experts": 4}),
    "mamba": ("MambaConfig", {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2}),
    "mamba2": (
        "Mamba2Config",
        {
            "vocab_size": 97,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_heads": 8,
            "head_dim": 8,
            "state_size": 16,
            "n_groups": 1,
        },
    ),
    "rwkv": ("RwkvConfig", {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}),
    "qwen2-moe": ("Qwen2MoeConfig", {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32}),
}


class Loaded(TorchEngine):
    """The engine around a model that is there already."""

    def __init__(self, model: Any) -> None:
        self.model, self.device, self.batch_size = model.eval(), torch.device("cpu"), 3
        self.runtime = self.attach({})


@pytest.fixture(scope="module", params=CONFIGS)
def engine(request: pytest.FixtureRequest) -> Loaded:
    name, settings = CONFIGS[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**settings)
    return Loaded(transformers.AutoModelForCausalLM.from_config(config))


def ids(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, 97, length).tolist()


@torch.no_grad()
def test_padding_in_a_batch_changes_nothing(engine: Loaded) -> None:
    sequences = [ids(n, n) for n in (4, 21, 9, 16)]
    alone = [next(iter(engine.score([sequence], [1]))) for sequence in sequences]
    together = list(engine.score(sequences, [1] * 4))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-4)


@torch.no_grad()
def test_one_token_at_a_time_is_the_whole_window(engine: Loaded) -> None:
    tokens = ids(20, 5)
    prefill = np.concatenate(list(engine.logprobs(tokens, 1, "prefill")))
    decode = np.concatenate(list(engine.logprobs(tokens, 1, "decode")))
    assert prefill.shape == (19, 97)
    np.testing.assert_allclose(decode, prefill, atol=2e-3)
    scored = next(iter(engine.score([tokens], [1])))
    np.testing.assert_allclose(scored.logprobs, prefill[np.arange(19), tokens[1:]], atol=2e-4)


@torch.no_grad()
def test_a_batch_generates_what_each_prompt_does_alone(engine: Loaded) -> None:
    """Whether or not the model can be fed padding."""
    prompts = [ids(n, n) for n in (4, 19, 9, 9, 1)]
    assert engine.generate(prompts, 6, []) == [engine.generate([prompt], 6, [])[0] for prompt in prompts]


@torch.no_grad()
def test_generates_and_times(engine: Loaded) -> None:
    assert len(engine.generate([ids(5, 1)], 4, [])[0]) == 4
    assert len(engine.time([ids(5, 1), ids(5, 2)], 3).gaps_s) == 2
