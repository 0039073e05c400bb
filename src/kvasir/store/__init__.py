"""The data plane: the only way from dialects to engines."""
