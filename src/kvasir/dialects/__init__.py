"""Dialects: each folder turns one published API into calls of `kvasir.store.store` and back. They know no engine."""
