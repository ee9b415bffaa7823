"""From a full-precision causal LM to integer codes: activation-aware scaling, clipping, rounding.

Needs torch and transformers only. `awqbench.quantization.pipeline.quantize_model` is the way in.
"""
