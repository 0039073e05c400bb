"""The log on standard error: one line of text or one JSON object for each event, whatever strangers' text is in it."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from kvasir.printable import printable, printable_json, printable_lines


class TextLines(logging.Formatter):
    """Formats an event as a line; a traceback follows in lines of its own, which are indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is logging's
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "  " + printable_lines(super().formatException(ei)).replace("\n", "\n  ")


class JsonLines(logging.Formatter):
    """Formats an event as a JSON object: time, level, logger, process, message, and its fields and traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        event |= getattr(record, "fields", {})
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return printable_json(msgspec.json.encode(event).decode())


def set_up(level: str, format: str) -> None:
    """Log every event of this level or above to standard error. `format`: "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
