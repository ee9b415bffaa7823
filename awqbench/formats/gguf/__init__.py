"""llama.cpp's file format: writing a checkpoint as one, and saying what one holds. Needs the `gguf` package."""
