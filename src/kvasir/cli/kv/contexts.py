"""The file of contexts: servers by name, with access keys, readable by its owner alone."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from kvasir.cli.terminal import named
from kvasir.errors import Invalid, NotFound


@dataclasses.dataclass(frozen=True)
class Context:
    """A server, who asks it, and which store is meant unless another is named."""

    url: str
    key: str
    store: str | None = None


@dataclasses.dataclass
class Contexts:
    """All that is in the file."""

    by_name: dict[str, Context]
    #: The one in use
    current: str | None = None
    #: Whether other users of the machine can read the file, and the access keys in it.
    exposed: bool = False

    def named(self, name: str) -> Context:
        """Raises `NotFound`."""
        if name not in self.by_name:
            known = ", ".join(self.by_name) or "none yet: `kvasir context add` makes one"
            raise NotFound(f"there is no context {name!r}; there are: {known}")
        return self.by_name[name]


class NoHome(Invalid):
    """The user has no directory in which the file could be."""


def location() -> Path:
    """Where the file is, or would be. Raises `NoHome`."""
    base = os.environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(base) if base else Path.home() / ".config") / "kvasir" / "contexts.json"
    except RuntimeError:  # no HOME, and no entry of this user in the system's list
        raise NoHome("there is no home directory to keep contexts in: set HOME or XDG_CONFIG_HOME") from None


def load() -> Contexts:
    """What the file says; nothing if there is none. Raises `Invalid` if it is broken, and `NoHome`."""
    file = location()
    try:
        with file.open("rb") as opened:
            exposed = bool(stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077)
            found = json.loads(opened.read())
        by_name = {name: _context(**context) for name, context in found["contexts"].items()}
        return Contexts(by_name, _text(found.get("current")), exposed)
    except FileNotFoundError:
        return Contexts({})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid(f"{file} is not a file of contexts: mend it, or remove it and add the contexts again") from None


def _context(url: Any, key: Any, store: Any = None) -> Context:
    return Context(_text(url) or "", _text(key) or "", _text(store))


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("neither a text nor null")
    return value


def save(contexts: Contexts) -> None:
    """Replace the file. It is never readable by others, not for a moment. Raises `NoHome`."""
    # Where a link leads: who keeps the file elsewhere finds it there afterwards.
    file = location().resolve()
    content = {
        "current": contexts.current,
        "contexts": {name: dataclasses.asdict(context) for name, context in contexts.by_name.items()},
    }
    with named(str(file)):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".contexts-")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as made:
            json.dump(content, made, indent=2, ensure_ascii=False)
            made.write("\n")
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
