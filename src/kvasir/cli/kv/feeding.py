"""The body of an import whose producer takes its time: a server gives up on a request that pauses for too long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator

#: After so long a pause something is sent; servers wait for 30 seconds, unless they are told otherwise.
PAUSE_SECONDS = 10.0

#: What may stand before a line of JSON, and changes neither the line nor the number of lines.
NOTHING = b" "

#: So many pieces wait to be sent.
WAITING = 4

#: More of one line is not held back.
HELD_BYTES = 1_048_576


def without_pauses(pieces: Iterable[bytes], seconds: float = PAUSE_SECONDS) -> Iterator[bytes]:
    """The same bytes in other pieces, and a space between two lines whenever there was none for so many seconds.

    The first piece is waited for as long as it takes. Raises what `pieces` raises.
    """
    read: queue.Queue[bytes | BaseException | None] = queue.Queue(WAITING)
    threading.Thread(target=_read, args=(pieces, read), daemon=True).start()
    held, between, timeout = b"", True, None
    while True:
        try:
            piece = read.get(timeout=timeout)
        except queue.Empty:
            if between:
                yield NOTHING
            continue
        if isinstance(piece, BaseException):
            raise piece
        if piece is None:
            break
        # A line that has begun is held back: in the midst of it, a space may mean something.
        whole, end, rest = (held + piece).rpartition(b"\n")
        held, between = rest, between or bool(end)
        ready = whole + end
        if len(held) > HELD_BYTES:
            ready, held, between = ready + held, b"", False
        if ready:
            timeout = seconds
            yield ready
    if held:
        yield held


def _read(pieces: Iterable[bytes], read: queue.Queue[bytes | BaseException | None]) -> None:
    try:
        for piece in pieces:
            read.put(piece)
    except BaseException as error:
        read.put(error)
    else:
        read.put(None)
