"""A call centre that remembers for 30 days where each caller left off, in Voximplant's key-value storage."""

from __future__ import annotations

import os
from typing import Any

from voximplant.apiclient import VoximplantAPI, VoximplantException

DAYS_30 = 30 * 86_400
NO_SUCH_KEY = 496


class CallStates:
    """The state of each caller's last call."""

    def __init__(self, application_id: int) -> None:
        """Credentials and endpoint come from the environment, as in production."""
        self._api: Any = VoximplantAPI(os.environ["VOXIMPLANT_CREDENTIALS"], endpoint=os.environ["VOXIMPLANT_ENDPOINT"])
        self._application_id = application_id

    def remember(self, caller: str, state: str) -> None:
        """Keep a state for 30 days."""
        self._api.set_key_value_item(f"call:{caller}", state, application_id=self._application_id, ttl=DAYS_30)

    def recall(self, caller: str) -> str | None:
        """The state of the last call; None: there was none in the last 30 days."""
        try:
            found = self._api.get_key_value_item(f"call:{caller}", application_id=self._application_id)
        except VoximplantException as error:
            if error.code == NO_SUCH_KEY:
                return None
            raise
        return str(found["result"]["value"])
