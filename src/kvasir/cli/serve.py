"""`kvasir serve`: its options are the rows of the table of settings."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import typer

from kvasir.config import loading, table
from kvasir.config.parsers import OFF

_FILE_HELP = f"Settings in TOML. [default: {loading.FILE} in the working directory, if there is one]"


def register(app: typer.Typer) -> None:
    """Add the command. Typer reads a function's signature, so one is built here from the rows."""
    parameters = [_parameter("config_file", Path | None, "--config", metavar="FILE", help=_FILE_HELP)]
    for setting in table.SETTINGS:
        option, help, group = setting.option, help_text(setting), f"{setting.group}"
        if setting.is_flag:
            both = f"{option}/--no-{option[2:]}"
            parameters.append(_parameter(setting.name, bool | None, both, help=help, rich_help_panel=group))
            continue
        kind = list[str] | None if setting.is_repeatable else str | None
        parameters.append(
            _parameter(setting.name, kind, option, metavar=setting.unit, help=help, rich_help_panel=group)
        )
        if setting.can_be_off:
            no = f"--no-{option[2:]}"
            help = f"The same as {option} {OFF}."
            parameters.append(_parameter(f"no_{setting.name}", bool, no, help=help, rich_help_panel=group))
    _serve.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.command("serve", help="Start the server. Every option is also a KVASIR_… variable and a key of kvasir.toml.")(
        _serve
    )


def help_text(setting: table.Setting) -> str:
    """What `--help` says about a setting."""
    default = "" if setting.default in (None, "") else f" [default: {setting.default}]"
    return f"{setting.help}{default}"


def _parameter(name: str, type: Any, option: str, **options: Any) -> inspect.Parameter:
    default = False if type is bool else None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=typer.Option(default, option, **options), annotation=type
    )


def _serve(**arguments: Any) -> None:
    options: dict[str, str | None] = {}
    for setting in table.SETTINGS:
        value = arguments[setting.name]
        if setting.is_repeatable:
            value = ",".join(value) if value else None
        options[setting.name] = str(value).lower() if isinstance(value, bool) else value
        if arguments.get(f"no_{setting.name}"):
            options[setting.name] = OFF
    chosen = loading.load(options, os.environ, arguments["config_file"])
    from kvasir.server.run import run

    raise typer.Exit(run(chosen))
