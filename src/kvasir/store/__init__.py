"""The data plane: the only door between dialects and engines."""
