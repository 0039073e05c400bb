"""The NemesisDB API in a test bed: its conversations go through faults and the journal."""

from __future__ import annotations

from collections.abc import Callable

from kvasir.control import stores
from kvasir.dialects.nemesis.app import NemesisDialect
from kvasir.dialects.nemesis.commands import profile_09
from kvasir.dialects.nemesis.commands.context import Shared
from kvasir.dialects.nemesis.commands.profiles import PROFILES
from kvasir.dialects.nemesis.conversation.conversation import Conversation
from kvasir.testbed.bed import TestBed
from kvasir.testbed.forms import Named, NemesisForm
from kvasir.testbed.interception import InterceptedConversation


class InterceptedNemesis:
    """A `kvasir.dialects.websocket.Dialect` around the one of the NemesisDB API."""

    def __init__(self, bed: TestBed, inner: NemesisDialect) -> None:
        self._bed = bed
        self._inner = inner
        self.needs_key = inner.needs_key
        store = bed.store
        named = Named(bed)
        alias = stores.by_name(bed.operator.organisation, profile_09.STORE)
        self._forms = {
            "session": NemesisForm(named, PROFILES["session"], None, store.limits),
            "0.9": NemesisForm(named, PROFILES["0.9"], alias, store.limits),
        }

    def converse(
        self,
        path: str,
        authorization: str | None,
        emit: Callable[[list[bytes]], None],
        finish: Callable[[int, str], None],
    ) -> InterceptedConversation:
        shared = self._inner.shared
        name = path.strip("/") if path.strip("/") in PROFILES else shared.default_profile

        def make(shared: Shared, emit: Callable[[list[bytes]], None]) -> Conversation:
            return Conversation(shared, PROFILES[name], authorization, emit, finish)

        return InterceptedConversation(
            make, shared, self._forms[name], self._bed.faults, self._bed.journal, emit, finish
        )

    def close(self) -> None:
        self._inner.close()
