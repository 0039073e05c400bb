"""What connections may take."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class NemesisBounds:
    """What connections may take. `Bounds` of the dialect has those of its commands."""

    #: Bytes of one message, its fragments together
    max_payload: int = 1_048_576
    connections: int = 20_000
    #: Bytes of replies a connection has not read
    unread_bytes: int = 16_777_216
    #: Messages of a connection that are not answered; beyond, nothing more is read from it
    in_flight: int = 1_024
    #: Bytes of unfinished messages of all connections
    unfinished_bytes: int = 268_435_456
    #: Until the upgrade request is there
    handshake_seconds: float = 10.0
    #: From the first byte of a message to its last
    message_seconds: float = 30.0
    #: Silence after which a ping is sent, and after which the connection ends
    ping_seconds: float = 164.0
    idle_seconds: float = 180.0
    #: Each connection is looked at so often for the three bounds above
    round_seconds: float = 2.0
    #: Web pages that may connect, beside those of this machine
    origins: tuple[str, ...] = ()
