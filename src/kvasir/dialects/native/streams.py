"""What answers that are streamed have in common: how one begins, and how many a credential may have at a time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from kvasir.errors import Unavailable
from kvasir.limits import refused
from kvasir.model import Principal


class Begun:
    """The pieces of a generator whose first one has been made, so that what fails at once is answered as a failure."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        self._first: bytes | None = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        return await anext(self._rest) if first is None else first

    async def aclose(self) -> None:
        """Let go of everything that the generator holds."""
        await self._rest.aclose()


async def begin(pieces: AsyncGenerator[bytes, None]) -> Begun:
    """Make the first piece. Raises what that raises; the generator is done then."""
    return Begun(await anext(pieces), pieces)


class Slots:
    """How many streams of each kind every credential has open in this process."""

    def __init__(self) -> None:
        self._taken: Counter[tuple[str, str, str]] = Counter()

    @contextlib.contextmanager
    def take(self, principal: Principal, kind: str, most: int) -> Iterator[None]:
        """Hold one of so many places of a credential. Raises `Unavailable` if all are taken."""
        place = principal.organisation, principal.name, kind
        if self._taken[place] >= most:
            refused(f"credential_{kind}")
            raise Unavailable(f"this credential has {most:,} {kind} open already, as many as it may; end one of them")
        self._taken[place] += 1
        try:
            yield
        finally:
            self._taken[place] -= 1
            if not self._taken[place]:
                del self._taken[place]
