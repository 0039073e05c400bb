"""The NemesisDB WebSocket API. See docs/dialects/nemesis.md."""
