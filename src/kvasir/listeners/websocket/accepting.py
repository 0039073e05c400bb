"""Listening sockets at which at most so many connections are open at a time, whether they have said anything or not.

picows tells of a connection when it asks for its upgrade. Before that it has a file, too, for as long as it may take.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from typing import Any
from weakref import WeakSet

from kvasir.limits import refused

log = logging.getLogger("kvasir.websocket")

#: The system's words for having no file left, for this process or at all; and how often the log tells of it.
NO_FILES, REPEAT_SECONDS = (errno.EMFILE, errno.ENFILE), 1.0


class Accepted(socket.socket):
    """A connection, which is counted until it is closed."""

    def count_among(self, opened: WeakSet[Accepted]) -> None:
        self._opened = opened
        opened.add(self)

    def close(self) -> None:
        super().close()
        self._opened.discard(self)


class Accepting(socket.socket):
    """Another one for what a socket listens at. The server of picows accepts connections by it."""

    def __init__(self, listening: socket.socket, opened: WeakSet[Accepted], most: int) -> None:
        """`opened`: all connections that are open, of other sockets, too."""
        super().__init__(fileno=os.dup(listening.fileno()))
        self._opened, self._most = opened, most
        #: A file to accept one more connection with, if only to close it
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        self._told = float("-inf")

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. One too many is closed at once, and told as one that has ended by itself."""
        try:
            plain, address = super().accept()
        except OSError as error:
            if error.errno in NO_FILES:
                self._turn_away(error)
            raise
        if len(self._opened) >= self._most:
            plain.close()
            refused("nemesis_connections")
            raise ConnectionAbortedError
        accepted = Accepted(plain.family, plain.type, plain.proto, fileno=plain.detach())
        accepted.count_among(self._opened)
        return accepted, address

    def _turn_away(self, error: OSError) -> None:
        """Close the next connection, for which there is no file. Left waiting, it would be told of again and again."""
        if time.monotonic() - self._told > REPEAT_SECONDS:
            self._told = time.monotonic()
            log.warning("a connection could not be accepted: %s", error.strerror)
        self._let_go()
        try:
            super().accept()[0].close()
        except OSError:  # somebody was quicker
            raise BlockingIOError from None
        finally:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)
        raise ConnectionAbortedError from None

    def _let_go(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def close(self) -> None:
        self._let_go()
        super().close()
