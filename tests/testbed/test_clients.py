"""Programs and recorded conversations of the real services, unchanged, through the fixtures.

The official clients of Voximplant are in `test_node.py` and, for Python, in the example of `test_plugin.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from kvasir.testing import Server, Store
from tests.support.nemesis_replay import Replay, steps
from tests.support.versori_replay import NAMES, replay

TRANSCRIPT = Path(__file__).parents[1] / "nemesis" / "transcripts" / "session.txt"


@pytest.fixture(scope="module")
def lenient() -> Iterator[Server]:
    """As the services are: it ignores what they do not know."""
    server = Server(["--nemesis", "--lenient"])
    yield server
    server.stop()


@pytest.mark.parametrize("name", NAMES)
def test_requests_of_versoris_clients_are_answered_as_recorded(lenient: Server, name: str) -> None:
    store = Store(lenient)
    with httpx.Client(base_url=store.url, headers=store.headers, timeout=30) as client:

        def send(method: str, target: str, body: bytes) -> tuple[int, str]:
            answer = client.request(method, target, content=body or None)
            return answer.status_code, answer.text

        replay(name, send, store=store.store, organisation=store.organisation)


def test_a_conversation_with_nemesisdb_goes_as_recorded(lenient: Server) -> None:
    lenient.reset()  # the transcript counts all sessions
    conversation = Replay(lambda connection, message: connection.send(message))
    with connect(lenient.facts["nemesis"], compression=None, subprotocols=None) as connection:
        conversation.run(TRANSCRIPT, connection)
    assert conversation.compared == sum(len(step.replies) for step in steps(TRANSCRIPT))
