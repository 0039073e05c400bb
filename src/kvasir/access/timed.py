"""What checks credentials where requests are watched: it notes how long that took, where it took any waiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from kvasir.access.authenticator import Authenticator
from kvasir.access.service_tokens import Caller, ServiceTokenVerifier
from kvasir.model import Principal
from kvasir.timing import AUTH, current


@contextlib.contextmanager
def _checking() -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        if (timed := current.get()) is not None:
            timed.spent(AUTH, began, time.perf_counter())


class TimedAuthenticator(Authenticator):
    """An `Authenticator` that tells the current request how long it took."""

    async def authenticate(self, authorization: str | None, cookie: str | None) -> Principal:
        with _checking():
            return await super().authenticate(authorization, cookie)


class TimedVerifier(ServiceTokenVerifier):
    """The same for service tokens."""

    async def verify(self, authorization: str | None) -> Caller:
        with _checking():
            return await super().verify(authorization)
