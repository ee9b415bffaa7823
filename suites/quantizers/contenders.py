"""Who is compared: one line for each quantizer and what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

OURS = "awqbench"


@dataclass(frozen=True, slots=True)
class Contender:
    """`environment` names the runner, run_<environment>.py, and what it runs in; `windows` of `tokens` calibrate it."""

    label: str
    environment: str
    method: str
    windows: int = 8
    tokens: int = 128


CONTENDERS = {
    "rtn": Contender("round to nearest", OURS, "rtn"),
    "awq": Contender("awqbench awq", OURS, "awq"),
    "awq-module": Contender("awqbench awq, search module", OURS, "awq-module"),
    "gptq": Contender("awqbench gptq", OURS, "gptq"),
    "awq+gptq": Contender("awqbench awq+gptq", OURS, "awq+gptq"),
    "gptq-long": Contender("awqbench gptq", OURS, "gptq", windows=96),
    "awq+gptq-long": Contender("awqbench awq+gptq", OURS, "awq+gptq", windows=96),
    "llmcompressor-awq": Contender("llm-compressor AWQModifier", "llmcompressor", "awq"),
    "llmcompressor-gptq": Contender("llm-compressor GPTQModifier", "llmcompressor", "gptq"),
    "autoawq": Contender("AutoAWQ, mended", "autoawq", "awq"),
    "gptqmodel-gptq": Contender("GPTQModel GPTQ", "gptqmodel", "gptq"),
    "gptqmodel-gptq-long": Contender("GPTQModel GPTQ", "gptqmodel", "gptq", windows=96),
    "gptqmodel-awq": Contender("GPTQModel AWQ", "gptqmodel", "awq"),
}
