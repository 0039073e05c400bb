"""Every recorded exchange of the session profile, with a real server: whole, in fragments, and all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from kvasir.dialects.nemesis.commands.profiles import PROFILES
from tests.support.nemesis_replay import Replay, steps
from tests.support.serving import serving

TRANSCRIPT = Path(__file__).parent / "transcripts" / "session.txt"


def whole(connection: ClientConnection, message: str | bytes) -> None:
    connection.send(message)


def in_fragments(connection: ClientConnection, message: str | bytes) -> None:
    """In pieces of seven characters, with a ping in between."""
    pieces = [message[at : at + 7] for at in range(0, len(message), 7)] or [message]

    def parts() -> object:
        for number, piece in enumerate(pieces):
            if number == 1:
                connection.protocol.send_ping(b"between")
            yield piece

    connection.send(parts())  # type: ignore[arg-type]


@pytest.mark.parametrize("send", [whole, in_fragments])
def test_every_reply_is_the_recorded_one(tmp_path: Path, send: object) -> None:
    replay = Replay(send)  # type: ignore[arg-type]
    with (
        serving(tmp_path) as server,
        connect(server.nemesis_url, compression=None, subprotocols=None) as connection,
    ):
        replay.run(TRANSCRIPT, connection)
        # There is not one reply more than recorded.
        connection.send('{"NOPE":1}')
        assert connection.recv(timeout=30) == '{"ERR":{"st":10,"m":"NOPE"}}'
    assert replay.compared == sum(len(step.replies) for step in steps(TRANSCRIPT)) > 200


def test_the_transcript_has_every_command() -> None:
    said = TRANSCRIPT.read_text(encoding="utf-8")
    assert [name for name in PROFILES["session"].commands if f'>> {{"{name}"' not in said] == []
