"""vLLM on a CPU: a checkpoint's likeliest tokens and its greedy continuation, for interop.py."""

from __future__ import annotations

import os

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

from engine import answer, asked
from vllm import LLM, SamplingParams
from vllm import __version__ as version
from vllm.inputs import TokensPrompt


def main() -> None:
    """Score the prompt, then continue its beginning."""
    task = asked()
    llm = LLM(
        model=task.checkpoint,
        dtype=task.dtype,
        enforce_eager=True,
        max_model_len=len(task.prompt) + 32,
        max_logprobs=task.top,
        disable_log_stats=True,
    )
    scored = llm.generate(
        TokensPrompt(prompt_token_ids=task.prompt),
        SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=task.top),
    )[0]
    # The first token has no prediction; the one actually there is appended to the top where it is not among them.
    top = [
        {token: found.logprob for token, found in position.items() if found.rank is not None and found.rank <= task.top}
        for position in (scored.prompt_logprobs or [])[1:]
        if position is not None
    ]
    continued = llm.generate(
        TokensPrompt(prompt_token_ids=task.start),
        SamplingParams(max_tokens=task.continuation, temperature=0, ignore_eos=True),
    )[0]
    answer(task, version, top, list(continued.outputs[0].token_ids))


if __name__ == "__main__":
    main()
