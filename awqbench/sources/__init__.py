"""Where models and texts come from: a local path, then an installed package that ships it, then the hub."""
