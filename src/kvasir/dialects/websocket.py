"""What a listener needs of a WebSocket API. No sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Conversation(Protocol):
    """One connection's commands and replies."""

    #: Messages taken in and not done with.
    unanswered: int

    def look_after(self) -> None:
        """Called when the connection begins, and then about once a second."""

    def feed(self, messages: Sequence[bytes | None]) -> None:
        """Take in what arrived together, in order; None stands for a message that was binary."""

    async def settled(self) -> None:
        """Return when everything taken in is done with."""

    def drop(self) -> None:
        """The connection is gone."""


class Dialect(Protocol):
    """A published WebSocket API."""

    #: Whether a connection must bring an access key.
    needs_key: bool

    def converse(
        self,
        path: str,
        authorization: str | None,
        emit: Callable[[list[bytes]], None],
        finish: Callable[[int, str], None],
    ) -> Conversation:
        """A conversation for a connection on this path.

        It gives frames to `emit`, in order (none at all to tell progress), and ends itself by a close code and the
        reason, given to `finish`.
        """
        ...

    def close(self) -> None:
        """No connection will come any more."""
