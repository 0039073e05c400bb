"""Dialects: each folder turns one published API into calls of `kvasir.store` and back. They know no engine."""
