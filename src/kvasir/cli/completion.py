"""`kvasir completion`: prints what a shell needs to complete commands, contexts, stores and keys."""

from __future__ import annotations

import enum
import os
import shlex
from typing import Annotated

import typer
from typer import completion as shells

PROGRAM = "kvasir"


class Shell(enum.StrEnum):
    """The shells that can complete."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell to print it for.")]) -> None:
    """Print the completion for a shell.

    For bash: `eval "$(kvasir completion bash)"` in ~/.bashrc. For zsh: the same, after `compinit`, in ~/.zshrc.
    For fish: `kvasir completion fish > ~/.config/fish/completions/kvasir.fish`.
    """
    typer.echo(
        shells.get_completion_script(prog_name=PROGRAM, complete_var=f"_{PROGRAM.upper()}_COMPLETE", shell=shell.value)
    )


def words_to_complete() -> list[str]:
    """The words that a shell wants completed, without the name of the program; and readiness to answer it."""
    shells.completion_init()
    line = os.environ.get("COMP_WORDS", os.environ.get("_TYPER_COMPLETE_ARGS", ""))
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation mark that has not been closed yet
        words = line.split()
    return words[1:]
