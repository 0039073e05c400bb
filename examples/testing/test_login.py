"""An hour passes in a moment, for every session of the server."""

from __future__ import annotations

from login import Logins
from websockets.sync.client import connect

from kvasir.testing import Server


def test_a_login_is_good_for_an_hour(kvasir_server: Server) -> None:
    with connect(f"{kvasir_server.facts['nemesis']}/session") as connection:
        logins = Logins(connection)
        token = logins.log_in("freyja")
        kvasir_server.clock.advance("59m")
        assert logins.user(token) == "freyja"
        kvasir_server.clock.advance("1m")
        assert logins.user(token) is None
    kvasir_server.reset()
