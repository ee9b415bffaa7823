"""Engines. One file each; a backend is imported only inside its worker process."""
