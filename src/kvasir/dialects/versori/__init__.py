"""The Versori KV API: array keys, versionstamps and lifetimes over HTTP and JSON."""
