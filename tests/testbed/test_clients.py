"""Programs and recorded conversations of the real services, unchanged, through the fixtures.

The official clients of Voximplant are in `test_node.py` and, for Python, in the example of `test_plugin.py`.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from kvasir.testing import Server, Store
from tests.support.nemesis_replay import Replay, steps
from tests.support.versori_replay import NAMES, replay

TRANSCRIPT = Path(__file__).parents[1] / "nemesis" / "transcripts" / "session.txt"


@pytest.fixture(scope="session")
def kvasir_options() -> list[str]:
    """As the services are: they ignore what they do not know."""
    return ["--nemesis", "--lenient"]


@pytest.mark.parametrize("name", NAMES)
def test_requests_of_versoris_clients_are_answered_as_recorded(kvasir_versori: Store, name: str) -> None:
    with httpx.Client(base_url=kvasir_versori.url, headers=kvasir_versori.headers, timeout=30) as client:

        def send(method: str, target: str, body: bytes) -> tuple[int, str]:
            answer = client.request(method, target, content=body or None)
            return answer.status_code, answer.text

        replay(name, send, store=kvasir_versori.store, organisation=kvasir_versori.organisation)


def test_a_conversation_with_nemesisdb_goes_as_recorded(kvasir_server: Server) -> None:
    kvasir_server.reset()  # the transcript counts all sessions
    conversation = Replay(lambda connection, message: connection.send(message))
    with connect(kvasir_server.facts["nemesis"], compression=None, subprotocols=None) as connection:
        conversation.run(TRANSCRIPT, connection)
    assert conversation.compared == sum(len(step.replies) for step in steps(TRANSCRIPT))
