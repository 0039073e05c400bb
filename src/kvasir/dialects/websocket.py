"""What a listener requires of a WebSocket API. No sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Conversation(Protocol):
    """The requests and replies of one connection."""

    @property
    def unanswered(self) -> int:
        """Messages received and not done with."""
        ...

    def look_after(self) -> None:
        """Called when the connection opens, and then every few seconds."""

    def feed(self, messages: Sequence[bytes | None]) -> None:
        """Receive messages that arrived together, in order; None stands for a binary one."""

    async def settled(self) -> None:
        """Return when all messages received are done with."""

    def drop(self) -> None:
        """The connection is closed."""


class Dialect(Protocol):
    """A published WebSocket API."""

    #: Whether a connection has to send an access key
    needs_key: bool

    def converse(
        self,
        path: str,
        authorization: str | None,
        emit: Callable[[list[bytes]], None],
        finish: Callable[[int, str], None],
        header: Callable[[str], str | None],
    ) -> Conversation:
        """A conversation for a connection on this path, which a request with these headers has opened.

        It calls `emit` with frames to send, in order (none when a message without a reply is done with), and ends
        the connection by calling `finish` with a close code and the reason; 1006, which no close frame can carry, cuts
        the connection.
        """
        ...

    def close(self) -> None:
        """There will be no more connections."""
