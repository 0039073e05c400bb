"""The composition root: settings in, processes with engines, dialects and listeners out."""
