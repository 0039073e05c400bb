"""Writes the pages in docs/ that are generated from tables in the code: `make docs`. A test fails if one is stale."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from kvasir import errors, limits, metrics
from kvasir.config.loading import FILE
from kvasir.config.table import LIMITS, NEMESIS, SETTINGS, VOXIMPLANT, Setting
from kvasir.dialects.native import problems
from kvasir.dialects.nemesis import statuses
from kvasir.dialects.versori import responses
from kvasir.dialects.voximplant import errors as voximplant
from tools.fixed_limits import FIXED, shown

DOCS = Path(__file__).parent.parent / "docs"

_MADE = "<!-- Generated from the code by `make docs`. Change it there. -->\n\n"

_SETTINGS_HEAD = f"""# Settings

Every setting can be given in three ways. An option wins over a variable, a variable over the file, the file over the
default. Settings are read once, at start; if one is wrong, the server does not start and says what to change.

- **Option** of `kvasir serve`: `--data-dir /var/lib/kvasir`. A flag is `--access-log` or `--no-access-log`; an address
  is switched off with `--no-https`, or with `off` instead of the address.
- **Variable**: `KVASIR_DATA_DIR=/var/lib/kvasir`. An empty variable counts as not set.
- **File** in TOML: `{FILE}` in the working directory, or the one named by `--config FILE` or `KVASIR_CONFIG`.
  A key that is not a setting is an error.

```toml
data_dir = "/var/lib/kvasir"
workers = 2
jwt_algorithms = ["RS256"]

[limits]
value_bytes = 2_097_152
```

The administrative commands (`kvasir key`, `kvasir store`, …) take `--data-dir`, `--engine` and `--config`, and read the
same variables and file.

What happens beyond a limit is in [limits.md](limits.md).
"""

_LIMITS_HEAD = """# Limits

Each limit allows N. The last column says what happens beyond it; a request that is refused has changed nothing. All but
the fixed limits at the end are settings: their variables and keys in the file are in [settings.md](settings.md). Codes
such as `too_large` are explained in [errors.md](errors.md), which also says how each API expresses them.
"""

#: Bodies of the Versori API: operations, property of `Limits`, and the settings it follows from.
BODIES: tuple[tuple[str, str, str], ...] = (
    ("SetKV", "set_body_bytes", "`value_bytes` + `metadata_bytes` + 4,096"),
    ("DeleteKV, ListKV, CountKV, CreateStore", "query_body_bytes", "6 × `key_bytes` + `metadata_bytes` + 4,096"),
    ("BatchGetKV, BatchDeleteKV", "keys_body_bytes", "3 × `batch_keys` × `key_bytes` + a body of ListKV"),
    ("BatchSetKV", "batch_body_bytes", "`batch_keys` × (6 × `key_bytes` + 4,096 + a body of SetKV) + 4,096"),
)

_BODIES_HEAD = """
## Bodies of the Versori API

A body is refused by its declared length, or as soon as more has come in, before anything is parsed. These limits follow
from the settings, and are never more than `--limit-body-bytes`. A character of a key may be an escape of six bytes.

| Operation | Default | Follows from | Beyond it |
|---|---:|---|---|
"""

_ERRORS_HEAD = """# Errors

These are the failures a caller can react to, whichever API it uses. A condition that is not met is not a failure but a
regular answer, if the API has one for it. *Retry* means: nothing has changed, and the same request may succeed later.
"""

_ERRORS_TAIL = """
The column of `/v1`, Kvasir's own API, is the HTTP status; the body is a problem document (RFC 9457) with `code` and, if
a part of the request is to blame, `fields`. There a condition that is not met is 412, with the code `conflict`. The
Versori column is the HTTP status, too; the body has `code`, `message`, `details` and, if a member of the request is to
blame, `fields`. The Voximplant API answers with HTTP 200 and this code in `error.code`. The NemesisDB API has this
status in `st` and the message in `m`. Anything else is a fault of the server: `internal`, logged with the id of the
request and never with a value.
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
    page = _MADE + _LIMITS_HEAD
    for group, title in ((LIMITS, "All APIs"), (NEMESIS, NEMESIS), (VOXIMPLANT, VOXIMPLANT)):
        page += f"\n## {title}\n\n| Setting | Default | Unit | What it limits | Beyond it |\n|---|---:|---|---|---|\n"
        page += "".join(
            f"| `{row.option}` | {(row.default or '').replace('_', ',')} "
            f"| {row.unit} | {row.limit.what} | {row.limit.beyond} |\n"
            for row in SETTINGS
            if row.group == group and row.limit
        )
    defaults = limits.Limits()
    page += _BODIES_HEAD + "".join(
        f"| {operations} | {getattr(defaults, name):,} bytes | {follows} | {limits.TOO_LARGE} |\n"
        for operations, name, follows in BODIES
    )
    for heading, rows in FIXED.items():
        page += f"\n## {heading}\n\n| What is limited | Limit | Unit | Beyond it |\n|---|---:|---|---|\n"
        page += "".join(f"| {what} | {shown(place)} | {unit} | {beyond} |\n" for place, what, unit, beyond in rows)
    return page


def errors_page() -> str:
    """docs/errors.md"""
    table = (
        "\n| Code | Retry | What happened | `/v1` | Versori | Voximplant | NemesisDB |\n"
        "|---|---|---|---:|---:|---:|---:|\n"
    )
    for kind in errors.KvasirError.__subclasses__():
        if kind.__module__ == errors.__name__:
            said = " ".join((inspect.getdoc(kind) or "").split())
            table += (
                f"| `{kind.code}` | {'yes' if kind.retryable else 'no'} | {said} "
                f"| {problems.FAILURES[kind].status} | {responses.FAILURES[kind].status} "
                f"| {voximplant.FAILURES[kind].code} | {int(statuses.OF_ERROR[kind])} |\n"
            )
    return _MADE + _ERRORS_HEAD + table + _ERRORS_TAIL


_METRICS_HEAD = """# Metrics

What `GET /metrics` tells, of all workers of a server added up (those of a process, `process_…`, tell them apart by the
label `worker`). [observability.md](observability.md) says how to collect and watch them. Names follow the conventions
of Prometheus: base units, counters that end in `_total`. Counters start from 0 with the server, not with a worker.
Figures of the database are up to ten seconds old, others of other workers up to one.
"""


def metrics_page() -> str:
    """docs/operate/metrics.md"""
    table = "\n| Metric | Labels | Kind | What it is |\n|---|---|---|---|\n"
    table += "".join(
        f"| `{family.name}` | {', '.join(f'`{label}`' for label in family.labels)} | {family.kind} | {family.help} |\n"
        for family in metrics.FAMILIES
    )
    counted = ", ".join(f"`{bound}`" for bound in limits.BOUNDS)
    outcomes = ", ".join(f"`{outcome}`" for outcome in dict.fromkeys(metrics.OUTCOMES))
    return (
        f"{_MADE}{_METRICS_HEAD}{table}\nThe values of `bound`, named as in [limits.md](../limits.md): {counted}.\n\n"
        f"The values of `outcome`: {outcomes}; [errors.md](../errors.md) explains them. "
        "A condition that is not met is a `conflict`.\n"
    )


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "limits.md": limits_page,
    "errors.md": errors_page,
    "operate/metrics.md": metrics_page,
}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
