"""Real server processes that are hurt."""
