"""Writes the pages in docs/ that are made from tables in the code. `make docs` runs it; a test demands fresh pages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from kvasir import errors
from kvasir.config.loading import FILE
from kvasir.config.table import LIMITS, SETTINGS, Setting
from kvasir.dialects.nemesis import statuses
from kvasir.dialects.versori import answers
from kvasir.dialects.voximplant import errors as voximplant

DOCS = Path(__file__).parent.parent / "docs"

_MADE = "<!-- Made by `make docs` from the code. Change it there. -->\n\n"

_SETTINGS_HEAD = f"""# Settings

Every setting can be given in three ways. An option wins over a variable, a variable over the file, the file over the
default. Settings are read once, at start; a wrong one ends the start with a word on what to do.

- **Option** of `kvasir serve`: `--data-dir /var/lib/kvasir`. A flag is `--access-log` or `--no-access-log`; an address
  is switched off with `--no-https`, or `off` in place of the address.
- **Variable**: `KVASIR_DATA_DIR=/var/lib/kvasir`. An empty variable is not set.
- **File** in TOML: `{FILE}` in the working directory, or the one that `--config FILE` or `KVASIR_CONFIG` names.
  A key that is no setting is an error.

```toml
data_dir = "/var/lib/kvasir"
workers = 2
jwt_algorithms = ["RS256"]

[limits]
value_bytes = 2_097_152
```

The administrative commands (`kvasir key`, `kvasir store`, …) take `--data-dir`, `--engine` and `--config`, and read the
same variables and file.
"""

_LIMITS_HEAD = """# Limits

Each limit passes N and refuses N + 1 with an error that names it, before anything is written. Every one is a setting:
the option is `--limit-…`, the variable `KVASIR_LIMIT_…`, the key in the file stands in the table `[limits]`
(see [settings.md](settings.md)).
"""

_LIMITS_TAIL = """
The bounds of single APIs (longest message, longest text value, items of a list) are among the settings of that API in
[settings.md](settings.md).

Three bounds are no settings: a name has at most 255 characters, a credential at most 8,192, and the headers of one
request at most 128 KiB (HTTP/1.1) or 64 KiB (HTTP/2).
"""

_ERRORS_HEAD = """# Errors

A caller can react to these failures, whatever API it speaks. A condition that is not met is no failure but an answer,
where the API has room for one. *Retry* means: nothing happened, and the same request may succeed later.
"""

_ERRORS_TAIL = """
The Versori column is the HTTP status; the body carries `code`, `message`, `details` and, where a member of the request
is to blame, `fields`. The Voximplant API answers with HTTP 200 and this code in `error.code`. The NemesisDB API puts
this status into `st` and the message into `m`. Whatever is none of these is a fault of the server: `internal`, logged
with the id of the request and never with a value.
"""


def settings_page() -> str:
    """docs/settings.md"""
    return _MADE + _SETTINGS_HEAD + "".join(_group(name, list(rows)) for name, rows in _groups())


def _groups() -> Iterator[tuple[str, Iterator[Setting]]]:
    return groupby(SETTINGS, key=lambda setting: setting.group)


def _group(name: str, rows: list[Setting]) -> str:
    head = "| Option, variable, key in the file | Default | What it is |\n|---|---|---|\n"
    return f"\n## {name}\n\n{head}" + "".join(
        f"| `{row.option}` *{row.unit.replace('|', ' or ')}*<br>`{row.variable}`<br>`{row.key}` "
        f"| {_default(row)} | {row.help} |\n"
        for row in rows
    )


def _default(setting: Setting) -> str:
    return "" if setting.default in (None, "") else f"`{setting.default}`"


def limits_page() -> str:
    """docs/limits.md"""
    rows = [setting for setting in SETTINGS if setting.group == LIMITS]
    table = "\n| Limit | Default | Unit | What it bounds |\n|---|---:|---|---|\n" + "".join(
        f"| `{row.name.removeprefix('limit_')}` | {row.default.replace('_', ',') if row.default else ''} "
        f"| {row.unit} | {row.help} |\n"
        for row in rows
    )
    return _MADE + _LIMITS_HEAD + table + _LIMITS_TAIL


def errors_page() -> str:
    """docs/errors.md"""
    table = "\n| Code | Retry | What happened | Versori | Voximplant | NemesisDB |\n|---|---|---|---:|---:|---:|\n"
    for kind in errors.KvasirError.__subclasses__():
        if kind.__module__ == errors.__name__:
            said = " ".join((inspect.getdoc(kind) or "").split())
            table += (
                f"| `{kind.code}` | {'yes' if kind.retryable else 'no'} | {said} | {answers.FAILURES[kind].status} "
                f"| {voximplant.FAILURES[kind].code} | {int(statuses.OF_ERROR[kind])} |\n"
            )
    return _MADE + _ERRORS_HEAD + table + _ERRORS_TAIL


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "limits.md": limits_page,
    "errors.md": errors_page,
}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
