"""Checkpoint formats: how quantized weights lie on disk."""
