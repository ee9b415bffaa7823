"""Servers that speak OpenAI's completions protocol, and what each of them adds to it."""
