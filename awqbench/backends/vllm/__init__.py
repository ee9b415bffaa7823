"""vLLM's offline engine inside the worker."""
