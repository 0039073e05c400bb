"""`kvasir kv` in a real terminal: what people see, and what they are asked."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kvasir_client import Client, Raw, Store

from tests.support.kv import Kv, terminal
from tests.support.serving import KVASIR, Server

_names = itertools.count(1)


@pytest.fixture
def store(server: Server) -> Iterator[Store]:
    with Client(server.url, key=server.key) as client:
        yield client.store(client.create_store(f"terminal-{next(_names)}").id)


@pytest.fixture
def kv(server: Server, store: Store, tmp_path: Path) -> Kv:
    return Kv(server, store.show().id, tmp_path)


def shown(kv: Kv, *arguments: str, status: int = 0) -> str:
    """What a verb shows in a terminal, standard output and error together."""
    with kv.terminal(*arguments) as seen:
        assert seen.end() == status, seen.shown
        return seen.shown


def test_every_verb_that_asks_nothing(kv: Kv, store: Store) -> None:
    assert shown(kv, "set", "a/b", '{"n": 9.50}') == ""
    assert shown(kv, "get", "a/b") == '{"n": 9.50}\n'
    assert shown(kv, "set", "t", "--text", "hello") == ""
    assert shown(kv, "get", "t", "--text") == "hello\n"
    assert shown(kv, "incr", "n", "--by", "5") == "5\n"
    assert shown(kv, "touch", "n", "--ttl", "1h") == ""
    assert shown(kv, "count") == "3\n"
    assert shown(kv, "list") == "a/b\nn\nt\n"
    assert shown(kv, "tree") == "/\n├── a/\n│   └── b\n├── n\n└── t\n"
    assert shown(kv, "delete", "n") == ""
    assert "no entry" in shown(kv, "get", "n", status=4)
    assert store.count() == 2


def test_a_value_is_typed(kv: Kv, store: Store) -> None:
    with kv.terminal("set", "k", "-") as seen:
        seen.type('{"typed":\n1}\n\x04')
        assert seen.end() == 0
    entry = store.get("k")
    assert entry
    assert entry.value == {"typed": 1}
    assert "Ctrl-D" in shown(kv, "set", "k", status=2)


@pytest.mark.parametrize(("answer", "left", "status"), [("y", 1, 0), ("n", 3, 1)])
def test_deleting_a_prefix_asks(kv: Kv, store: Store, answer: str, left: int, status: int) -> None:
    for key in (("a", "1"), ("a", "2"), ("b",)):
        store.set(key, 1)
    with kv.terminal("delete", "a", "--prefix") as seen:
        seen.expect(r"Delete 2 entries below a\? \[y/N\]")
        seen.type(answer + "\n")
        assert seen.end() == status
    assert store.count() == left


def test_a_prefix_that_has_grown_while_it_was_asked_stays(kv: Kv, store: Store) -> None:
    store.set(("a", "1"), 1)
    with kv.terminal("delete", "a", "--prefix") as seen:
        seen.expect(r"Delete 1 entry below a")
        store.set(("a", "2"), 1)
        seen.type("y\n")
        assert seen.end() == 5
    assert store.count() == 2


# -- edit ----------------------------------------------------------------------------------------------------------


def editor(folder: Path, *steps: str) -> str:
    """A program that edits like a person: one step each time it is called. `{file}` is what it is to edit."""
    script = folder / "editor.sh"
    calls = folder / "calls"
    body = "\n".join(f"{number}) {step} ;;" for number, step in enumerate(steps, 1))
    script.write_text(
        f'#!/bin/sh\nset -e\necho x >> {calls}\ncase $(wc -l < {calls} | tr -d " ") in\n{body}\nesac\n'.replace(
            "{file}", '"$1"'
        )
    )
    script.chmod(0o755)
    return str(script)


def other_write(kv: Kv, value: str) -> str:
    """A step of the editor: somebody else writes meanwhile, keeping what is beside the value."""
    return f"{KVASIR} kv set k '{value}' --keep"


def test_edit_keeps_life_and_metadata(kv: Kv, store: Store, tmp_path: Path) -> None:
    store.set("k", {"n": 1}, ttl="1h", refresh=True, metadata={"m": 1})
    before = store.get("k", extend=False)
    variables = {"EDITOR": editor(tmp_path, "echo '{\"n\":2}' > {file}")}
    with kv.terminal("edit", "k", variables=variables) as seen:
        assert seen.end() == 0, seen.shown
    after = store.get("k", extend=False)
    assert before
    assert after
    assert after.raw == b'{"n":2}'
    assert (after.metadata, after.refresh, after.expires_at) == ({"m": 1}, before.refresh, before.expires_at)


def test_edit_keeps_a_life_that_was_changed_meanwhile(kv: Kv, store: Store, tmp_path: Path) -> None:
    store.set("k", 1, ttl="1h", refresh=True, metadata={"m": 1})
    touched = f"{KVASIR} kv touch k --expires-at 2100-01-01T00:00:00Z; echo 2 > {{file}}"
    kv("edit", "k", variables={"EDITOR": editor(tmp_path, touched)})
    after = kv.json("get", "k", "--peek")
    assert (after["value"], after["metadata"], after["refresh"]) == (2, {"m": 1}, 3_600_000)
    assert after["expires_at"] == "2100-01-01T00:00:00.000Z"


def test_edit_shows_long_values_on_several_lines_and_keeps_their_digits(kv: Kv, store: Store, tmp_path: Path) -> None:
    store.set("k", Raw(b'{"price":9.50,"big":12345678901234567890,"text":"\\u00e9"}'))
    copy = tmp_path / "copy"
    step = f"cp {{file}} {copy}; sed -i.old s/9.50/9.60/ {{file}}"
    assert kv("edit", "k", variables={"VISUAL": editor(tmp_path, step)}) == ""
    assert copy.read_text().splitlines()[1] == '  "price": 9.50,'
    entry = store.get("k")
    assert entry
    assert entry.raw == b'{"price":9.60,"big":12345678901234567890,"text":"\\u00e9"}'


def test_edit_without_a_change_writes_nothing(kv: Kv, store: Store, tmp_path: Path) -> None:
    versionstamp = store.set("k", [1])
    done = kv.run("edit", "k", variables={"EDITOR": editor(tmp_path, "true")})
    assert b"nothing was changed" in done.stderr
    entry = store.get("k")
    assert entry
    assert entry.versionstamp == versionstamp


def test_a_conflict_in_edit_shows_the_difference_and_loses_nothing_typed(kv: Kv, store: Store, tmp_path: Path) -> None:
    store.set("k", {"n": 1}, metadata={"m": 1})
    again = 'grep -q mine {file} && echo \' {"n":"mine"}\' > {file}'
    steps = (other_write(kv, '{"n":"theirs"}') + '; echo \'{"n":"mine"}\' > {file}', again)
    with kv.terminal("edit", "k", variables={"EDITOR": editor(tmp_path, *steps)}) as seen:
        seen.expect(r"-.*theirs")
        seen.expect(r"\+.*mine")
        seen.expect(r"Edit again\?")
        seen.type("y\n")
        assert seen.end() == 0, seen.shown
    assert "\n \n" not in seen.shown, "the end of the last line is no line"
    entry = store.get("k")
    assert entry
    assert (entry.value, entry.metadata) == ({"n": "mine"}, {"m": 1})


@pytest.mark.parametrize(("answer", "value", "status"), [("y", "mine", 0), ("\n", "theirs", 5)])
def test_to_leave_the_editor_after_a_conflict_replaces_nothing_unasked(
    kv: Kv, store: Store, tmp_path: Path, answer: str, value: str, status: int
) -> None:
    store.set("k", "before")
    steps = (other_write(kv, '"theirs"') + "; echo '\"mine\"' > {file}", "true")
    with kv.terminal("edit", "k", variables={"EDITOR": editor(tmp_path, *steps), "TMPDIR": str(tmp_path)}) as seen:
        seen.expect(r"Edit again\?")
        seen.type("y\n")
        seen.expect(r"Replace theirs with it\? \[y/N\]")
        seen.type(answer + "\n")
        assert seen.end() == status, seen.shown
    entry = store.get("k")
    assert entry
    assert entry.value == value
    assert len(list(tmp_path.glob("kvasir-*.json"))) == (status != 0)


def test_the_difference_is_harmless_to_the_terminal(kv: Kv, store: Store, tmp_path: Path) -> None:
    store.set("k", 1)
    store.set("theirs", Raw('"\x9b2J\u202e\u2028"'.encode()))
    meanwhile = f"{KVASIR} kv get theirs | {KVASIR} kv set k -; echo 2 > {{file}}"
    said = kv.complaint("edit", "k", status=5, variables={"EDITOR": editor(tmp_path, meanwhile)})
    assert r'-"\x9b2J\u202e\u2028"' in said
    assert "\n \n" not in said
    assert "\x9b" not in said


#: An editor that takes Ctrl-C for something of its own.
DEAF = """#!{python}
import signal, sys
signal.signal(signal.SIGINT, lambda *_: print("not now", flush=True))
print("editing", flush=True)
sys.stdin.readline()
open(sys.argv[1], "w").write('"typed"')
"""


def test_ctrl_c_belongs_to_the_editor(kv: Kv, store: Store, tmp_path: Path) -> None:
    store.set("k", 1)
    script = tmp_path / "deaf"
    script.write_text(DEAF.format(python=sys.executable))
    script.chmod(0o755)
    with kv.terminal("edit", "k", variables={"EDITOR": str(script)}) as seen:
        seen.expect("editing")
        seen.type("\x03")
        seen.expect("not now")
        seen.type("\n")
        assert seen.end() == 0, seen.shown
    entry = store.get("k")
    assert entry
    assert entry.value == "typed"


def test_an_editor_that_ctrl_c_ends_leaves_what_was_typed(kv: Kv, store: Store, tmp_path: Path) -> None:
    store.set("k", 1)
    step = "echo '\"typed\"' > {file}; echo editing; exec cat"
    with kv.terminal("edit", "k", variables={"EDITOR": editor(tmp_path, step), "TMPDIR": str(tmp_path)}) as seen:
        seen.expect("editing")
        seen.type("\x03")
        assert seen.end() == 1
    assert "by signal 2" in seen.shown
    (draft,) = tmp_path.glob("kvasir-*.json")
    assert f"what you have typed is in {draft}" in seen.shown
    assert draft.read_text() == '"typed"\n'


def test_ctrl_c_at_a_question(kv: Kv, store: Store, tmp_path: Path) -> None:
    # Of a signal that comes just before it begins to read, Python takes no notice until it has read something.
    store.set("k", 1)
    variables = {"EDITOR": editor(tmp_path, "echo no >> {file}"), "TMPDIR": str(tmp_path)}
    with kv.terminal("edit", "k", variables=variables) as seen:
        seen.expect(r"Edit again\?")
        seen.type("\x03")
        assert seen.end(again="\x03") == 130
    (draft,) = tmp_path.glob("kvasir-*.json")
    assert f"what you have typed is in {draft}" in seen.shown
    with kv.terminal("delete", "k", "--prefix") as seen:
        seen.expect("Delete 1 entry")
        seen.type("\x03")
        assert seen.end(again="\x03") == 130
    with kv.terminal("add", "c", group="context", variables={"KVASIR_KEY": ""}) as seen:
        seen.expect("access key: ")
        seen.type("\x03")
        assert seen.end(again="\x03") == 130
    assert store.count() == 1


@pytest.mark.parametrize("in_terminal", [True, False])
def test_who_gives_up_after_a_conflict_finds_what_was_typed(
    kv: Kv, store: Store, tmp_path: Path, in_terminal: bool
) -> None:
    store.set("k", 1)
    variables = {"EDITOR": editor(tmp_path, other_write(kv, "2") + "; echo '\"typed\"' > {file}")}
    variables["TMPDIR"] = str(tmp_path)
    if in_terminal:
        with kv.terminal("edit", "k", variables=variables) as seen:
            seen.expect(r"Edit again\?")
            seen.type("n\n")
            assert seen.end() == 5
    else:
        assert "what you have typed is in" in kv.complaint("edit", "k", status=5, variables=variables)
    (draft,) = tmp_path.glob("kvasir-*.json")
    assert draft.read_text() == '"typed"\n'
    assert stat.S_IMODE(draft.stat().st_mode) == 0o600
    entry = store.get("k")
    assert entry
    assert entry.value == 2


def test_what_is_no_json_is_edited_again(kv: Kv, store: Store, tmp_path: Path) -> None:
    store.set("k", 1)
    steps = ("echo '{\"a\":' > {file}", "grep -q a {file} && echo '{\"a\":1}' > {file}")
    with kv.terminal("edit", "k", variables={"EDITOR": editor(tmp_path, *steps)}) as seen:
        seen.expect("no JSON")
        seen.expect(r"Edit again\?")
        seen.type("\n")
        assert seen.end() == 0, seen.shown
    entry = store.get("k")
    assert entry
    assert entry.value == {"a": 1}


def test_failures_of_edit(kv: Kv, store: Store, tmp_path: Path) -> None:
    assert "kvasir kv set" in kv.complaint("edit", "no", status=4)
    store.set("k", 1)
    variables = {"TMPDIR": str(tmp_path)}
    assert "EDITOR" in kv.complaint("edit", "k", status=1, variables=variables | {"EDITOR": "/no/such/editor"})
    failing = variables | {"EDITOR": editor(tmp_path, "exit 3")}
    assert "status 3" in kv.complaint("edit", "k", status=1, variables=failing)
    assert list(tmp_path.glob("kvasir-*.json")) == []
    (tmp_path / "calls").unlink()
    said = kv.complaint("edit", "k", status=1, variables=variables | {"EDITOR": editor(tmp_path, "rm {file}")})
    assert "removed the file" in said
    assert "typed is in" not in said
    gone = f"{KVASIR} kv delete k; echo 5 > {{file}}"
    (tmp_path / "calls").unlink()
    said = kv.complaint("edit", "k", status=5, variables={"EDITOR": editor(tmp_path, gone)})
    assert "no longer there" in said
    assert "somebody" not in said
    assert Path(said.rsplit(" ", 1)[1].strip()).read_text() == "5\n"


# -- moving and watching -------------------------------------------------------------------------------------------


def test_export_and_import_draw_a_bar(kv: Kv, store: Store, tmp_path: Path) -> None:
    store.load(b'{"key":["k","%d"],"value":1}\n' % n for n in range(2_000))
    file = str(tmp_path / "all")
    drawn = shown(kv, "export", "--output", file)
    assert "2000/2000" in drawn
    assert "wrote 2,000 entries" in drawn
    drawn = shown(kv, "import", file)
    assert "kB" in drawn
    assert "set 2,000" in drawn
    # To the terminal itself, the lines come without one.
    assert shown(kv, "export", "k/7").splitlines()[0].startswith('{"key":["k","7"]')


def test_lines_are_typed_and_one_ctrl_d_ends_them(kv: Kv, store: Store) -> None:
    with kv.terminal("import") as seen:
        seen.expect("Ctrl-D")
        seen.type('{"key":["k"],"value":1}\n\x04')
        seen.expect("set 1, kept 0, refused 0")
        assert seen.end() == 0
    assert "kB" not in seen.shown
    assert "bytes" not in seen.shown
    assert store.count() == 1


def test_watch_goes_on_until_it_is_interrupted(kv: Kv, store: Store) -> None:
    with kv.terminal("watch") as seen:
        seen.expect('"event":"ready"')
        store.set("k", 1)
        seen.expect('"event":"set","key":\\["k"\\]')
        seen.type("\x03")
        assert seen.end() == 130
        assert "Traceback" not in seen.shown


#: A signal that another thread takes leaves the main one waiting, like one that comes just before it begins to wait.
UNSEEN = """
import os, signal, sys, threading, time
from kvasir.cli import main

path = sys.argv.pop()

def interrupt():
    while not os.path.exists(path):
        time.sleep(0.05)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=interrupt, daemon=True).start()
main()
"""


def test_watch_ends_by_an_interrupt_that_does_not_wake_it(kv: Kv, tmp_path: Path) -> None:
    seen_it = tmp_path / "interrupt"
    with terminal([sys.executable, "-c", UNSEEN, "kv", "watch", str(seen_it)], kv.environment({})) as seen:
        seen.expect('"event":"ready"')
        seen_it.touch()
        began = time.monotonic()
        assert seen.end() == 130
        assert time.monotonic() - began < 10, "a comment of the stream had to wake it, which comes every 15 s"


# -- access keys and completion ------------------------------------------------------------------------------------


def test_the_access_key_is_asked_for_and_not_shown(kv: Kv, server: Server) -> None:
    none = {"KVASIR_KEY": "", "KVASIR_URL": ""}
    with kv.terminal("add", "typed", "--url", server.url, group="context", variables=none) as seen:
        seen.expect("access key: ")  # the space comes when nothing is echoed any more
        seen.type(server.key + "\n")
        assert seen.end() == 0
        assert server.key not in seen.shown
    assert kv("count", variables=none) == "0\n"


def test_what_no_word_can_be_is_not_offered(kv: Kv, store: Store) -> None:
    for key in ("-dash", "=equals", "plain", ("p", "plain"), ("p", "", "x"), ("", "x")):
        store.set(key, 1)

    def offered(typed: str, before: str = "get") -> list[str]:
        variables = {"_KVASIR_COMPLETE": "complete_bash", "COMP_WORDS": f"kvasir kv {before} {typed}"}
        done = subprocess.run([KVASIR], env=kv.environment(variables), capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout.split()

    assert offered("p") == ["p/", "plain"]
    assert offered("p", "watch --only") == ["p/", "plain"]
    assert offered("") == ["p/", "plain"]
    assert offered("p/") == ["p/plain"]
    for nothing in ("p//", "p//pl", "/", "/pl", "//", "-d", "=e"):
        assert not any(each.strip("-").startswith(("p", "/", "d", "=")) for each in offered(nothing)), nothing


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_zsh_completes_keys_part_by_part(kv: Kv, store: Store, server: Server) -> None:
    for key in (("one", "two", "three"), "user:17", "plain"):
        store.set(key, 1)
    variables = kv.environment({}) | {"PATH": f"{KVASIR.parent}:{os.environ['PATH']}"}
    with terminal([str(shutil.which("zsh")), "-f", "-i"], variables) as zsh:
        zsh.type("autoload -Uz compinit; compinit -u -D; PROMPT='ready> '\n")
        zsh.type('eval "$(kvasir completion zsh)"; echo "loaded"\n')
        zsh.expect("loaded\n")
        for typed, wanted in (
            ("kvasir kv get on\ttw\tth\t", "one/two/three"),
            ("kvasir kv get user\t", "user:17"),
            ("kvasir kv get --store=defa\t x", "--store=default x"),
            ("kvasir kv list --order=n\t", "--order=newest"),
        ):
            # What is on the line, by the shell itself: it draws completions piece by piece.
            zsh.type(typed + "\x01print -r -- '<\x05>'\n")
            zsh.expect(f"[\\n\\r]<kvasir kv [a-z]+ {wanted} ?>")
        zsh.type("exit\n")
        zsh.end()


def test_bash_completes_commands_contexts_stores_and_keys(kv: Kv, store: Store, server: Server) -> None:
    for key in ("plain", ("products", "1"), ("products", "2"), ("products", "$(touch injected)"), ("prod;ls",)):
        store.set(key, 1)
    for other in (("one", "two", "three"), ("user:17",), ("n=1", "x"), ("n=1", "y")):
        store.set(other, 1)
    kv.run("add", "working", "--key", server.key, "--url", server.url, group="context")
    variables = kv.environment({}) | {"PATH": f"{KVASIR.parent}:{os.environ['PATH']}", "PS1": "ready> "}
    with terminal(["/bin/bash", "--norc", "--noprofile", "-i"], variables) as bash:
        bash.type('eval "$(kvasir completion bash)"; echo loaded\n')
        bash.expect("[\\n\\r]loaded")
        for typed, completed in (
            ("kvasir kv cou", "kvasir kv count "),
            ("kvasir context use wor", "kvasir context use working "),
            ("kvasir kv get --store defa", "kvasir kv get --store default "),
            ("kvasir kv get pla", "kvasir kv get plain "),
            ("kvasir kv get pro", "kvasir kv get products/"),
            # Nothing ends behind a slash: the next part follows at once.
            ("kvasir kv get on\ttw\tth", "kvasir kv get one/two/three "),
            # Bash takes ":" and "=" for ends of words.
            (f"kvasir kv get --url {server.url} pla", f"kvasir kv get --url {server.url} plain "),
            (f"kvasir kv get --url={server.url} pla", f"kvasir kv get --url={server.url} plain "),
            ("kvasir kv get user:", "kvasir kv get user:17 "),
            ("kvasir kv get n=1/x", "kvasir kv get n=1/x "),
            ("kvasir kv get --store=defa", "kvasir kv get --store=default "),
            ("kvasir kv list --order=n", "kvasir kv list --order=newest "),
            ("COMP_WORDBREAKS=' '; kvasir kv list --order=n", "; kvasir kv list --order=newest "),
        ):
            # A completion gives up after a moment, so as not to hold up who types.
            bash.type(typed + "\t")
            bash.expect(completed, again="\t")
            bash.type("\x15")
        # Only what means nothing to a shell is offered.
        bash.type("kvasir kv list products/\t\t")
        bash.expect("products/1.*products/2", again="\t\t")
        bash.type("\x15exit\n")
        bash.end()
        assert "injected" not in bash.shown
        assert "prod;ls" not in bash.shown


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --command")]
)
def test_each_shell_has_its_completion(kv: Kv, shell: str, word: str) -> None:
    assert word in kv.run(shell, group="completion").stdout.decode()


if sys.platform != "linux":
    pytestmark = pytest.mark.skip("pseudo-terminals end in another way here")
