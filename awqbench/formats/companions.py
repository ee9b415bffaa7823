"""What a model's folder holds beside weights and config. Standard library only: engines elsewhere read it too."""

from __future__ import annotations

# Of these a folder with a tokenizer has one.
TOKENIZER = ("tokenizer.*", "tokenizer_config.json", "vocab.*", "*.model", "*.tiktoken")
WITH_TOKENIZER = (
    *TOKENIZER, "tokenizer*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "additional_chat_templates/*", "*.py",
)  # fmt: skip
# With its defaults and the terms of its use.
COMPANIONS = (
    *WITH_TOKENIZER, "generation_config.json", "preprocessor_config.json", "processor_config.json", "LICENSE*",
)  # fmt: skip
