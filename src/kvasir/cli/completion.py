"""`kvasir completion`: prints what a shell needs to complete commands, contexts, stores and keys."""

from __future__ import annotations

import enum
import os
import shlex
from typing import Annotated

import typer
from typer import completion as shells

PROGRAM = "kvasir"

#: Bash breaks words at the signs of COMP_WORDBREAKS, ":" and "=" among them, and replaces what is behind the last one:
#: so the line is what we look at, and what Bash has broken off is taken from the answers. A key that goes on, which
#: ends with a slash, gets no blank.
_BASH = r"""
_kvasir_completion() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}" option=
    local word="${line##*[[:space:]]}"
    case $word in --*=*) option="${word%%=*}=" ;; esac
    COMPREPLY=( $(env COMP_WORDS="$line" _KVASIR_COMPLETE=complete_bash "$1" 2>/dev/null) )
    COMPREPLY=( "${COMPREPLY[@]/#/$option}" )
    COMPREPLY=( "${COMPREPLY[@]#"${word%"${word##*[$COMP_WORDBREAKS]}"}"}" )
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then compopt -o nospace 2>/dev/null; fi
    return 0
}

complete -o default -F _kvasir_completion kvasir
"""

_ZSH = r"""
#compdef kvasir

_kvasir_completion() {
    local answer value
    local -a answers whole begun
    answers=("${(@f)$(env _TYPER_COMPLETE_ARGS="${(j: :)words[1,CURRENT-1]} $PREFIX" \
        _TYPER_COMPLETE_FISH_ACTION=get-args _KVASIR_COMPLETE=complete_fish $words[1] 2>/dev/null)}")
    for answer in $answers; do
        value=${answer%%$'\t'*}
        if [[ $value == */ ]]; then
            begun+=("$value")
        else
            whole+=("${value//:/\\:}${${answer#$value}/$'\t'/:}")
        fi
    done
    if (( ! $#whole && ! $#begun )); then
        _files
        return
    fi
    [[ $PREFIX == --*=* ]] && compset -P '*='
    (( $#whole )) && _describe kvasir whole
    (( $#begun )) && compadd -S '' -- $begun
}

compdef _kvasir_completion kvasir
"""


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
    own = {Shell.bash: _BASH, Shell.zsh: _ZSH}
    # What typer has for fish does all of this.
    typer.echo(
        own[shell].strip()
        if shell in own
        else shells.get_completion_script(prog_name=PROGRAM, complete_var="_KVASIR_COMPLETE", shell=shell.value)
    )


def words_to_complete() -> list[str]:
    """The words that a shell wants completed, without the name of the program; and readiness to answer it."""
    shells.completion_init()
    line = os.environ.get("COMP_WORDS", os.environ.get("_TYPER_COMPLETE_ARGS", ""))
    words = _split(line)
    # Which of the words is being typed: typer asks Bash, which counts them in another way.
    os.environ["COMP_CWORD"] = str(len(words) - (1 if words and not line[-1].isspace() else 0))
    return words[1:]


def _split(line: str) -> list[str]:
    """The words of a line of which the last may lack its closing quotation mark."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:
        words.append(lexer.token)
    return words
