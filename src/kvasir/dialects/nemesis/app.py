"""The NemesisDB API as a whole, for the server to construct and a listener to serve. Owns no socket and no clock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from kvasir.access.authenticator import Authenticator
from kvasir.dialects.nemesis.commands.context import Observe, Saves, Shared
from kvasir.dialects.nemesis.commands.profiles import NO_COMMAND, PROFILES
from kvasir.dialects.nemesis.conversation.conversation import Conversation
from kvasir.dialects.nemesis.conversation.watched import WatchedConversation
from kvasir.limits import NemesisLimits
from kvasir.model import Principal
from kvasir.store.store import Store
from kvasir.timing import Watcher


class NemesisDialect:
    """A `kvasir.dialects.websocket.Dialect`."""

    name: ClassVar[str] = "nemesis"
    #: The names of all operations that are observed
    operations: ClassVar[tuple[str, ...]] = (
        *dict.fromkeys(name for profile in PROFILES.values() for name in profile.commands),
        NO_COMMAND,
    )

    def __init__(
        self,
        store: Store,
        caller: Principal | Authenticator,
        *,
        limits: NemesisLimits,
        default_profile: str,
        saves: Saves | None = None,
        observe: Observe = lambda *_: None,
        strict: bool = False,
        watcher: Watcher | None = None,
    ) -> None:
        """`caller` is who every client is taken to be, or what identifies clients by their access keys.

        `strict`: refuse what would otherwise be ignored, and logged.
        """
        # A single thread, so that long searches take turns with each other and leave the rest of the machine alone.
        self._threads = ThreadPoolExecutor(1, "nemesis-find")
        self.shared = Shared(store, caller, limits, default_profile, saves, self._threads, observe, strict, watcher)
        #: Whether a connection has to send an access key
        self.needs_key = isinstance(caller, Authenticator)

    def converse(
        self,
        path: str,
        authorization: str | None,
        emit: Callable[[list[bytes]], None],
        finish: Callable[[int, str], None],
        header: Callable[[str], str | None] = lambda _: None,
    ) -> Conversation:
        """A conversation for a connection on this path; see `Conversation`."""
        profile = PROFILES.get(path.strip("/")) or PROFILES[self.shared.default_profile]
        parts = self.shared, profile, authorization, emit, finish
        if (watcher := self.shared.watcher) is None:
            return Conversation(*parts)
        return WatchedConversation(*parts, watcher=watcher, header=header)

    def close(self) -> None:
        """End the thread."""
        self._threads.shutdown(wait=False, cancel_futures=True)
