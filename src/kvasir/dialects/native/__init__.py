"""Kvasir's own API, under /v1: everything that the store can do, by the conventions of HTTP."""
