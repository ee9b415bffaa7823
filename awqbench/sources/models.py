"""From a model's name to a folder that transformers can load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awqbench.errors import UserError, first_line
from awqbench.formats import settings
from awqbench.sources.hub import hub_refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGED = ("demo", "tiny-random")


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model's folder, and what to call it in a report."""

    path: Path
    label: str
    origin: str  # path, package, generated or hub


def resolve_model(source: str, revision: str | None = None, trust_remote_code: bool = False) -> ResolvedModel:
    """The folder of a causal LM given as a path, a packaged name or a hub id.

    Raises UserError, one line, for a folder that is missing or incomplete, a model that is no causal LM, or a hub id
    where there is no hub.
    """
    if source == "demo":
        from awqbench.sources.demo import demo_folder

        model = ResolvedModel(demo_folder(), "SmolLM2-135M-Instruct, de-quantized Q4_1 (not FP16)", "package")
    elif source == "tiny-random":
        from awqbench.sources.tiny import tiny_folder

        model = ResolvedModel(
            tiny_folder(), "tiny-random (untrained: for trying things out, its verdict means nothing)", "generated"
        )
    elif (folder := Path(source).expanduser()).is_dir():
        model = ResolvedModel(folder.resolve(), folder.resolve().name, "path")
    elif _looks_like_path(source):
        raise UserError(
            f"no model folder at {source} (allowed: a folder with config.json, {', '.join(PACKAGED)}, a hub id)"
        )
    else:
        model = ResolvedModel(_download(source, revision), source, "hub")
    check_causal_lm(model.path, trust_remote_code)
    return model


def check_causal_lm(folder: Path, trust_remote_code: bool = False) -> dict[str, Any]:
    """The folder's config.json; raises UserError unless it describes a causal LM."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is no model folder: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} is not a JSON file: {error}") from None
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if trust_remote_code and "AutoModelForCausalLM" in config.get("auto_map", {}):
        return config
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.get("model_type", ""))
    names = config.get("architectures") or []
    # An encoder's model type may have a causal head too (BERT): what the checkpoint says it is decides.
    wrong = names and not any("CausalLM" in name or "LMHead" in name or name == known for name in names)
    if known is None or wrong:
        said = ", ".join(names) or f"model_type {config.get('model_type')!r}"
        raise UserError(
            f"{folder} holds no causal language model but {said} (allowed: what AutoModelForCausalLM loads)"
        )
    return config


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The folder's tokenizer. Raises UserError when it has none."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # a file that is not there or too new, or a package that it wants
        raise UserError(f"cannot load the tokenizer in {folder}: {first_line(error)}") from None
    # Texts longer than a window are cut into windows here; the tokenizer's own length warning would only mislead.
    tokenizer.model_max_length = 10**9
    return tokenizer


def positions(folder: Path, trust_remote_code: bool = False) -> int:
    """Tokens that the model holds at once, as the reference's engine takes it."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return settings.positions(config.get_text_config())


def vocabulary_size(folder: Path, trust_remote_code: bool = False) -> int:
    """Tokens of the vocabulary, padding included: the length of a row of log-probabilities. 0 where it isn't said."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return int(getattr(config.get_text_config(), "vocab_size", 0))


def end_ids(folder: Path) -> set[int]:
    """The tokens that end the model's answer by its own account, as transformers' `generate` reads them.

    Chat models end a turn by another token than the tokenizer's EOS (Gemma's <end_of_turn>, Phi's <|end|>).
    """
    file = next((f for f in (folder / "generation_config.json", folder / "config.json") if f.is_file()), None)
    named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file else None
    return {int(token) for token in (named if isinstance(named, list) else [named]) if token is not None}


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") > 1


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    refusal = hub_refusal()
    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                local_files_only=refusal is not None,
                ignore_patterns=["*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.pth", "original/*"],
            )
        )
    except LocalEntryNotFoundError:
        raise UserError(
            f"model {repo!r} is neither a folder nor in the hub's cache, and the hub is out of reach: "
            f"{refusal or 'no answer'}"
            f" (allowed: a folder, {', '.join(PACKAGED)}, a hub id)"
        ) from None
    except Exception as error:  # of the network, of the hub, or of the disk
        raise UserError(f"cannot get model {repo!r} from the hub: {first_line(error)}") from None
