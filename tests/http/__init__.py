"""The HTTP server, whatever is sent to it."""
