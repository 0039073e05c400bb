"""What nobody can try in the cloud: a month passes, the service throttles, an answer is lost."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from call_state import CallStates
from voximplant.apiclient import VoximplantException

from kvasir.testing import Application


@pytest.fixture
def states(kvasir_voximplant: Application, monkeypatch: pytest.MonkeyPatch) -> CallStates:
    monkeypatch.setenv("VOXIMPLANT_CREDENTIALS", str(kvasir_voximplant.credentials))
    monkeypatch.setenv("VOXIMPLANT_ENDPOINT", urlsplit(kvasir_voximplant.url).netloc)
    return CallStates(kvasir_voximplant.application_id)


def test_a_caller_is_remembered_for_thirty_days_and_not_longer(
    kvasir_voximplant: Application, states: CallStates
) -> None:
    states.remember("+4930123", "waiting for a callback")
    kvasir_voximplant.clock.advance("29d")
    assert states.recall("+4930123") == "waiting for a callback"
    assert kvasir_voximplant.clock.advance("24h") == 1
    assert states.recall("+4930123") is None


def test_a_rate_limit_is_not_taken_for_a_caller_who_never_called(
    kvasir_voximplant: Application, states: CallStates
) -> None:
    states.remember("+4930123", "waiting for a callback")
    kvasir_voximplant.faults.add("rate_limited", operation="GetKeyValueItem", times=1)
    with pytest.raises(VoximplantException, match="Rate limit"):
        states.recall("+4930123")
    assert states.recall("+4930123") == "waiting for a callback"
