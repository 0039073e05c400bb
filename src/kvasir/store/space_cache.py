"""Spaces by ULID and by alias, as they were at one epoch of the engine. Looks nothing up by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kvasir.model import Alias, Space

#: Spaces that one process caches before it starts over; each is a few hundred bytes.
MAX_SPACES = 10_000


class SpaceCache:
    """What the engine said about spaces since the epoch last changed."""

    def __init__(self, time_in: Callable[[Space], int]) -> None:
        """`time_in`: the time in a space, in Unix milliseconds."""
        self._time_in = time_in
        #: The epoch that all of it is true for.
        self.epoch = -1
        self._spaces: dict[str | Alias, Space] = {}
        #: The space under a ULID or alias, if it is cached; perhaps it has expired. A dict's own method, since every
        #: request calls it.
        self.peek = self._spaces.get

    def move_to(self, epoch: int) -> int:
        """Forget everything unless this is still the epoch. Returns it."""
        if epoch != self.epoch:
            self._spaces.clear()
            self.epoch = epoch
        return epoch

    async def fetch(self, name: str | Alias, lookup: Awaitable[Space | None]) -> Space | None:
        """The living space that the lookup of a ULID or an alias finds; it is cached then."""
        epoch = self.epoch
        space = await lookup
        # A space found before the epoch changed may be the very one that it changed for.
        if space is not None and epoch == self.epoch:
            if len(self._spaces) >= MAX_SPACES:
                self._spaces.clear()
            self._spaces[name] = space
        return space

    def is_expired(self, space: Space) -> bool:
        """Whether a cached space is gone, which changes no epoch. Its alias may lead to a successor."""
        return space.expires_at is not None and space.expires_at <= self._time_in(space)
