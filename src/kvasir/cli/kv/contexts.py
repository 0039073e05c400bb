"""The file of contexts: servers by name, with access keys, readable by its owner alone."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path

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

    def named(self, name: str) -> Context:
        """Raises `NotFound`."""
        if name not in self.by_name:
            known = ", ".join(self.by_name) or "none yet: `kvasir context add` makes one"
            raise NotFound(f"there is no context {name!r}; there are: {known}")
        return self.by_name[name]


def location() -> Path:
    """Where the file is, or would be."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "kvasir" / "contexts.json"


def load() -> Contexts:
    """What the file says; nothing if there is none. Raises `Invalid` if it is broken."""
    file = location()
    try:
        found = json.loads(file.read_bytes())
        by_name = {name: Context(**context) for name, context in found["contexts"].items()}
        return Contexts(by_name, found.get("current"))
    except FileNotFoundError:
        return Contexts({})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Invalid(f"{file} is not a file of contexts: mend it, or remove it and add the contexts again") from None


def save(contexts: Contexts) -> None:
    """Replace the file. It is never readable by others, not for a moment."""
    file = location()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {
        "current": contexts.current,
        "contexts": {name: dataclasses.asdict(context) for name, context in contexts.by_name.items()},
    }
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".contexts-")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as made:
            json.dump(content, made, indent=2, ensure_ascii=False)
            made.write("\n")
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
