"""llama.cpp in process, through its C interface."""
