"""A clock that tests set: forward by a stretch, to an instant, or on with the time of the machine."""

from __future__ import annotations

from kvasir.engine import Clock


class SettableClock:
    """The time of the server or of one space, in Unix milliseconds, on top of another clock."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._ahead = 0
        #: The instant it stands at; None: it runs
        self._at: int | None = None

    def __call__(self) -> int:
        return self._base() + self._ahead if self._at is None else self._at

    @property
    def is_frozen(self) -> bool:
        return self._at is not None

    def advance(self, milliseconds: int) -> None:
        """Move it forward; if it stands, it stands there afterwards."""
        if self._at is None:
            self._ahead += milliseconds
        else:
            self._at += milliseconds

    def freeze(self, at: int) -> None:
        """Let it stand at an instant."""
        self._at = at

    def run(self) -> None:
        """Let it run on from where it stands."""
        if self._at is not None:
            self._ahead = self._at - self._base()
            self._at = None

    def kept(self) -> tuple[int, int | None]:
        """What `put_back` takes."""
        return self._ahead, self._at

    def put_back(self, kept: tuple[int, int | None]) -> None:
        """Let it go as if it had not been set since."""
        self._ahead, self._at = kept

    def reset(self) -> None:
        """Let it show again what the clock below shows."""
        self._ahead, self._at = 0, None
