"""What every backend that holds a transformers model in this process does alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from awqbench.backends.base import BackendBase, FloatArray, Path, Scored, Timing
from awqbench.backends.device import pick_device
from awqbench.backends.generation import generate
from awqbench.backends.stops import Stops
from awqbench.cores import use_threads
from awqbench.formats.settings import positions
from awqbench.quantization.memory import hold_freed
from awqbench.runtime.attach import Runtime
from awqbench.runtime.grouping import PASS, Batch, Ids, Pass, batches
from awqbench.runtime.shared_prefix import SharedPrefix, padded

# Rows of full-vocabulary log-probabilities made at once: 128 rows of a 128k vocabulary are 64 MiB.
CHUNK_ROWS = 128
# Tokens of one forward pass: bounds the logits of a batch, whatever its number of sequences.
BATCH_TOKENS = 2048


class TorchEngine(BackendBase):
    """Scores, generates and times with a loaded causal LM. Subclasses say how the weights get there."""

    model: Any
    options: dict[str, Any]
    device: torch.device
    batch_size: int
    runtime: Runtime

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `Backend.load`.

        Options read: weights, model_dir, dtype, device, threads, batch_size, trust_remote_code, runtime, settings.
        """
        self.options = options
        use_threads(options.get("threads"))
        torch.set_grad_enabled(False)
        self.device = pick_device(options["device"])
        self.batch_size = options.get("batch_size") or 32
        import transformers
        import transformers.models.auto.modeling_auto  # importing it takes seconds that are not the model's

        if self.device.type == "cpu":
            hold_freed()  # or the system clears the same pages for every batch
        started = time.perf_counter()
        self.model = self.build(options, getattr(torch, options["dtype"]))
        self.model.eval()
        self.runtime = self.attach(options)
        synchronize(self.device)
        config = self.model.config.get_text_config()
        return {
            "vocab_size": int(config.vocab_size),
            "max_positions": positions(config),
            "dtype": options["dtype"],
            "device": str(self.device),
            "kernel": self.kernel(),
            "runtime": self.runtime.name,
            "attention": getattr(config, "_attn_implementation", None),
            "batch_size": self.batch_size,
            "weight_bytes": self.weight_bytes(),
            "load_s": time.perf_counter() - started,
            "device_uuid": device_uuid(self.device),
            "threads": torch.get_num_threads(),
            "engine": "transformers",
            "engine_version": transformers.__version__,
            "torch": torch.__version__,
            "capabilities": ["score", "logprobs", "decode-logprobs", "generate", "stop-texts", "time", "tokenize"],
        }

    def build(self, options: dict[str, Any], dtype: torch.dtype) -> Any:
        """The loaded model on its device."""
        raise TypeError(f"{type(self).__name__} does not say how its weights are loaded")

    def attach(self, options: dict[str, Any]) -> Runtime:
        """What decodes token by token: the model's own forward pass."""
        return Runtime(self.model, self.device, None, "transformers")

    def kernel(self) -> str:
        """What multiplies the weights."""
        return "torch dense"

    def weight_bytes(self) -> int:
        """Bytes of the loaded weights, with what is needed to read them."""
        return weight_bytes(self.model)

    def score(self, sequences: list[list[int]], starts: list[int]) -> Iterator[Scored]:
        """See `Backend.score`.

        A sequence's last token is never an input, so sequences that differ only there (answers of one token to one
        question) are one input. Inputs that begin alike have their beginning computed once, up to where scoring starts,
        if the model bears it (`SharedPrefix`). Batches hold inputs of like length, padded on the right: a causal LM
        ignores it.
        """
        owners: dict[Ids, list[int]] = {}
        limits: dict[Ids, int] = {}
        done: dict[int, Scored] = {}
        for index, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
            if start == len(sequence):
                done[index] = score_row(torch.empty(0), sequence, start)
                continue
            ids = tuple(sequence[:-1])
            owners.setdefault(ids, []).append(index)
            limits[ids] = min(start - 1, limits.get(ids, start - 1))  # logits are needed from start - 1 on
        due = 0
        for batch in self._batches(limits):
            for ids, logits in self._passes(batch):
                for index in owners[ids]:
                    done[index] = score_row(logits, sequences[index][batch.prefix :], starts[index] - batch.prefix)
                del logits  # or they would still be there while the next ones are computed
            # Results leave in the caller's order, each as soon as all before it are there.
            while due in done:
                yield done.pop(due)
                due += 1
        yield from (done[index] for index in range(due, len(sequences)))

    def _batches(self, limits: dict[Ids, int]) -> list[Batch]:
        found = batches(limits, self._pass)
        if all(not batch.prefix or batch.longest <= self._prefixes.limit for batch in found):
            return found
        bearable = {ids: limit if len(ids) <= self._prefixes.limit else 0 for ids, limit in limits.items()}
        return batches(bearable, self._pass)

    def _passes(self, batch: Batch) -> Iterator[tuple[Ids, Tensor]]:
        """Each input with the logits [rows, vocabulary] of what follows the batch's prefix."""
        if batch.prefix:
            yield from self._prefixes.passes(batch, self._pass)
        else:
            yield from zip(batch.inputs, self._forward(*padded(batch.inputs)), strict=True)

    @property
    def _pass(self) -> Pass:
        return Pass(self.batch_size, BATCH_TOKENS, PASS.get(self.device.type, PASS["cuda"]))

    @cached_property
    def _prefixes(self) -> SharedPrefix:
        return SharedPrefix(self.model, self.device)

    def logprobs(self, ids: list[int], start: int, path: Path) -> Iterator[FloatArray]:
        """See `Backend.logprobs`."""
        tokens = torch.tensor([ids])
        if path == "prefill":
            logits = self._forward(tokens, None)[0]
            for low in range(start - 1, len(ids) - 1, CHUNK_ROWS):
                yield log_softmax(logits[low : min(low + CHUNK_ROWS, len(ids) - 1)])
            return
        decoding = self.runtime.begin(1, len(ids))
        pending: list[Tensor] = []
        for low, high in [(0, start), *((t, t + 1) for t in range(start, len(ids) - 1))]:
            pending.append(decoding.feed(tokens[:, low:high]).clone())
            if len(pending) == CHUNK_ROWS:
                yield log_softmax(torch.cat(pending))
                pending = []
        if pending:
            yield log_softmax(torch.cat(pending))

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """See `Backend.generate`."""
        return self.generate_until(prompts, max_new_tokens, stop_ids, [])

    def generate_until(
        self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int], stop_texts: list[str]
    ) -> list[list[int]]:
        """See `Backend.generate_until`. Up to `batch_size` prompts side by side."""
        stops = Stops(stop_ids, stop_texts, self._text)
        return generate(self.runtime, prompts, max_new_tokens, stops, self.batch_size)

    def time(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """See `Backend.time`. Wall clock; a step ends when its tokens are on the host, as a server would send them."""
        fed = torch.tensor(prompts)
        length = fed.shape[1] + new_tokens
        decoding = self.runtime.begin(len(prompts), length)  # may capture a graph, which no request waits for
        synchronize(self.device)
        stamps = [time.perf_counter()]
        for _ in range(new_tokens):
            fed = decoding.feed(fed).argmax(-1, keepdim=True).cpu()
            stamps.append(time.perf_counter())
        gaps = np.diff(stamps)
        return Timing(float(gaps[0]), [float(gap) for gap in gaps[1:]], self.runtime.otherwise(len(prompts), length))

    def tokenize(self, texts: list[str], special: bool) -> list[list[int]]:
        """See `Backend.tokenize`. The tokenizer is the one beside the weights."""
        tokenizer = self._tokenizer(self.options["weights"])
        return [tokenizer.encode(text, add_special_tokens=special) for text in texts]

    @cached_property
    def _decoder(self) -> Any:
        """The model's own tokenizer, by which answers are cut: a checkpoint may lack one."""
        return self._tokenizer(self.options.get("model_dir") or self.options["weights"])

    def _tokenizer(self, folder: str) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, trust_remote_code=self.options.get("trust_remote_code", False))

    def _text(self, ids: Sequence[int]) -> str:
        return cast(str, self._decoder.decode(ids, skip_special_tokens=True))

    def memory(self) -> dict[str, int]:
        """See `Backend.memory`."""
        figures = super().memory()
        if self.device.type == "cuda":
            figures["device_allocated_peak"] = torch.cuda.max_memory_allocated(self.device)
            figures["device_reserved_peak"] = torch.cuda.max_memory_reserved(self.device)
        return figures

    def _forward(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        moved = mask.to(self.device) if mask is not None else None
        return cast(Tensor, self.model(input_ids=ids.to(self.device), attention_mask=moved, use_cache=False).logits)


def score_row(logits: Tensor, sequence: list[int], start: int) -> Scored:
    """Gather one sequence's own log-probabilities from its logits [positions, vocabulary], in float32."""
    kept, best = [torch.empty(0)], [torch.empty(0)]
    for low in range(start, len(sequence), CHUNK_ROWS):
        high = min(low + CHUNK_ROWS, len(sequence))
        chunk = logits[low - 1 : high - 1].float()
        target = torch.tensor(sequence[low:high], device=chunk.device)
        kept.append((chunk.gather(1, target[:, None])[:, 0] - chunk.logsumexp(1)).cpu())
        best.append(chunk.argmax(1).cpu())
    return Scored(torch.cat(kept).numpy(), torch.cat(best).int().numpy())


def log_softmax(logits: Tensor) -> FloatArray:
    """Log-probabilities in float32, whatever the logits' type: half precision would floor the tail.

    On a CPU torch's own log_softmax leaves the mass of 49,000 float32 numbers off by up to 1e-5, which
    would be a floor under every divergence; logsumexp leaves it off by 1e-7.
    """
    wide = logits.float()
    return cast(FloatArray, (wide - wide.logsumexp(-1, keepdim=True)).cpu().numpy())


def device_uuid(device: torch.device) -> str | None:
    """NVML's name for the device, so that only its telemetry is read; None on a CPU."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else None


def synchronize(device: torch.device) -> None:
    """Wait for the device, where it works asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def weight_bytes(model: Any) -> int:
    """Bytes of parameters and buffers held by the model, each storage once (tied weights count once)."""
    return storage_bytes([*model.parameters(), *model.buffers()])


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes behind the tensors, each storage once; of a tensor made of others, what lies behind those."""
    storages: dict[int, int] = {}
    waiting = list(tensors)
    while waiting:
        tensor = waiting.pop()
        # Quantized weights are tensors that wrap others and own no memory themselves.
        if type(tensor) not in (Tensor, nn.Parameter) and hasattr(tensor, "__tensor_flatten__"):
            waiting += [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
            continue
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
