"""Engines: each folder makes `kvasir.engine.Engine` durable in its own way. They know no dialect."""
