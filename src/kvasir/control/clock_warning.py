"""Says when the database is ahead of the clock, as it is after the clock was wrong for a while."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta

from kvasir.engine import Engine

log = logging.getLogger("kvasir")

#: Less is not worth a word: clocks differ by seconds and are corrected in small steps.
TOLERANCE_MILLISECONDS = 60_000

#: A warning that holds is logged this often.
REPEAT_SECONDS = 3_600.0

#: The last millisecond that a date can say
_LAST_DATE = 253_402_300_799_999


async def clock_warning(engine: Engine) -> str | None:
    """How far the database is ahead of the clock, until when, and what that means; None: it is not worth a word."""
    ahead = await engine.milliseconds_ahead()
    if ahead <= TOLERANCE_MILLISECONDS:
        return None
    until = datetime.fromtimestamp(min(engine.clock() + ahead, _LAST_DATE) / 1000, UTC)
    return (
        f"the database is ahead of the clock by {_span(ahead)}, until {until:%Y-%m-%dT%H:%M:%SZ}: until then, new"
        " entries get creation times, update times and versionstamps of that instant, since these never go back; expiry"
        " goes by the clock. If the clock is wrong now, correct it"
    )


def _span(milliseconds: int) -> str:
    span = timedelta(milliseconds=min(milliseconds, _LAST_DATE))
    return f"{span.days:,} days" if span.days > 1 else str(timedelta(seconds=int(span.total_seconds())))


class ClockLog:
    """Logs the warning when it begins to hold, every hour while it does, and its end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._logged_at: float | None = None

    async def look(self) -> None:
        """To be called every now and then. Raises `KvasirError` if the database does not answer."""
        warning = await clock_warning(self._engine)
        now = time.monotonic()
        if warning is None:
            if self._logged_at is not None:
                log.info("the clock has caught up with the database")
            self._logged_at = None
        elif self._logged_at is None or now - self._logged_at >= REPEAT_SECONDS:
            self._logged_at = now
            log.warning("%s", warning)
