"""Kvasir: one key-value store that speaks the published APIs of several services."""

__version__ = "0.1.0"
