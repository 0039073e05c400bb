"""The HTTP client that people use, a new connection for each request."""

from __future__ import annotations

import httpx

#: Meets every worker sooner or later, as one that keeps its connections would not.
client = httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
