"""The documents do what they say: commands run, tables are complete, links lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvasir import errors, metrics
from kvasir.cli import kv
from kvasir.cli.kv import outcomes
from kvasir.config.table import SETTINGS
from kvasir.dialects.native import problems
from kvasir.dialects.nemesis import statuses
from kvasir.dialects.versori import responses
from kvasir.dialects.voximplant import errors as voximplant
from kvasir.engines.postgres.schema import MIGRATIONS
from kvasir.server.data_directory import SUFFIXES
from tests.support import postgres
from tests.support.cli import run
from tests.support.serving import KVASIR, Server, environment, serving
from tools.pages import DOCS, PAGES

ROOT = DOCS.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

#: Commands of the README that start what the test has started already.
STARTED = {"make serve\n", ". .venv/bin/activate\n"}


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def first_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("readme")) as server:
        yield server


def run_in_the_clone(script: str, server: Server, tools: str = "installed", **variables: str) -> str:
    """Run shell lines as pasted into a terminal in the clone; what they print on standard output.

    With "shims", our own stand-in for curl comes first, as on a machine that has none.
    """
    script = script.replace("127.0.0.1:8901", f"127.0.0.1:{server.port}")
    script = script.replace("127.0.0.1:1987", f"127.0.0.1:{server.nemesis_port}")
    kvasir, installed, shims = str(KVASIR.parent), environment()["PATH"], str(ROOT / "tests" / "shims")
    path = [kvasir, shims, installed] if tools == "shims" else [kvasir, installed, shims]
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=ROOT,
        env=environment(PATH=":".join(path), KVASIR_DATA_DIR=str(server.data_dir), NO_PROXY="*", no_proxy="*")
        | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def section(title: str, text: str = README) -> str:
    """A section of a document, by its heading; of the README, unless told otherwise."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"there is no section {title!r}"
    return found[1]


def curled(text: str, server: Server, tools: str, **variables: str) -> tuple[str, list[Any]]:
    """What the commands of a section print, and the answers among it."""
    # The progress meter is the only thing that curl shows to people and not to a pipe.
    script = "".join(
        block.replace("curl ", "curl --silent --show-error --write-out '\\n' ") for block in blocks(text, "sh")
    )
    printed = run_in_the_clone(script, server, tools, **variables)
    return printed, [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def shown_members(text: str) -> list[set[str]]:
    """The members of each answer that a section shows."""
    return [set(json.loads(line)) for block in blocks(text, "json") for line in block.splitlines()]


@pytest.mark.parametrize("tools", ["installed", "shims"])
def test_the_first_minute(first_server: Server, tools: str) -> None:
    text = section("The first minute")
    printed, got = curled(text, first_server, tools)
    entry, value, by_versori = got
    assert entry["value"] == value == by_versori["value"] == {"name": "mead", "price": 9.50}
    assert entry["versionstamp"] == by_versori["versionstamp"]
    assert [set(answer) for answer in got] == shown_members(text)
    assert '"price": 9.50' in text
    assert printed.count('"price": 9.50') == 3  # digits as they were set
    assert "7,923" in printed
    assert "7,923" in text


@pytest.mark.parametrize("tools", ["installed", "shims"])
def test_a_minute_with_the_versori_api(first_server: Server, tools: str) -> None:
    text = section("In a minute", (DOCS / "dialects" / "versori.md").read_text(encoding="utf-8"))
    store = run_in_the_clone(f"kvasir store create {tools}", first_server).strip()
    _, got = curled(text, first_server, tools, STORE=store, KEY=first_server.key)
    put, entry, locked, refused, count, page, deleted = got
    assert put["committed"] is locked["committed"] is True
    assert refused["committed"] is False
    assert entry["value"] == {"name": "Chair", "price": 49.90}
    assert count["count"] == deleted["count"] == 1
    assert [one["key"] for one in page["data"]] == [["products", "123"]]
    assert [set(answer) for answer in (put, entry, locked, refused)] == shown_members(text)


def test_the_page_of_the_daily_tool(first_server: Server, tmp_path: Path) -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    run_in_the_clone("kvasir store create first-steps", first_server)
    variables = {"KVASIR_KEY": first_server.key, "XDG_CONFIG_HOME": str(tmp_path)}
    listed = run_in_the_clone("".join(blocks(section("Where to ask", text), "sh")), first_server, **variables)
    assert re.search(r"^\*\s+work ", listed, re.MULTILINE)
    script = "".join(blocks(section("The verbs", text), "sh")).replace("products.ndjson", f"{tmp_path}/products.ndjson")
    printed = run_in_the_clone(script, first_server, **(variables | {"KVASIR_KEY": ""}))
    assert printed.startswith('{"name": "mead", "price": 9.50}products/1\nproducts/2\n/ (3)\n')
    assert printed.endswith("2\n5\n")
    statuses = {int(status) for status in re.findall(r"^\| (\d) \|", text, re.MULTILINE)}
    assert statuses == {outcomes.DONE, outcomes.FAILED, *outcomes.STATUSES.values()}
    for verb in kv.VERBS:
        assert re.search(rf"`{verb}\b|kvasir kv {verb}\b", text), verb


def test_the_second_command_is_there() -> None:
    commands = blocks(section("Start it"), "sh")
    assert set(commands) == STARTED
    assert "serve: .venv/ready" in (ROOT / "Makefile").read_text()


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert len(README.splitlines()) <= 130


def test_what_the_documents_make_in_a_clone_is_no_business_of_git() -> None:
    """A private key among it. Where there is no git, or no clone, nobody can commit it either."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"kvasir-data/", "/credentials.json", "/tls/"} <= set(ignored)
    text = (DOCS / "dialects" / "voximplant.md").read_text(encoding="utf-8")
    assert "(umask 077 && kvasir service-account create --role Developer > credentials.json)" in text
    assert "kvasir dev-cert tls\n" in text


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (
            "voximplant.md",
            ['await api.SetKeyValueItem("test:1", "value1", 1, ttl: 864000)', "VoximplantException error"],
        ),
        ("voximplant.md", ["error.Code", "To use the `application_name` alone, give 0 there."]),
        ("voximplant.md", ["`next_cursor`, which the client does not", "`pyjwt<2.10`", "answers name their charset"]),
        ("versori.md", ["url_overwrite: http://127.0.0.1:8901/api/v2/", "| `ORG_<organisation>` |"]),
        ("nemesis.md", ["SH_SAVE and SH_LOAD follow version 0.3.5"]),
    ],
)
def test_what_clients_that_no_test_runs_need_to_know_is_said(page: str, words: list[str]) -> None:
    """Each was found by running the client: in C# and PHP, the old ones for Python, Versori's command line."""
    text = (DOCS / "dialects" / page).read_text(encoding="utf-8")
    assert [each for each in words if each not in text] == []


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    tested = {"Start it", "The first minute"}
    for title in re.findall(r"^## (.+)$", README, re.MULTILINE):
        if title not in tested:
            assert not blocks(section(title), "sh"), f"the commands of {title!r} are run by no test"


#: Documents with commands. Tests run them: here, or in the folder of an API; `make` is run by all who change the code.
WITH_COMMANDS = {
    "cli.md",
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks.md",
    "versori.md",
    "nemesis.md",
    "voximplant.md",
    "testing.md",
}


def test_commands_stand_only_where_they_are_run() -> None:
    for file in DOCUMENTS:
        if file.parent.name != "operate" and file.name not in WITH_COMMANDS:
            assert not blocks(file.read_text(encoding="utf-8"), "sh"), f"the commands of {file} are run by no test"


INDEX = (DOCS / "operate" / "README.md").read_text(encoding="utf-8")
#: The operator's pages in the order of their index.
OPERATOR_PAGES = re.findall(r"^\| \[([\w-]+\.md)\]\(\1\) \|", INDEX, re.MULTILINE)
OPERATE = "\n".join((DOCS / "operate" / name).read_text(encoding="utf-8") for name in OPERATOR_PAGES)

#: A word of each block of commands of the operator's pages; the tests below run them.
OPERATED = (
    "db init",
    "kvasir backup",
    "kvasir restore",
    "pg_dump",
    "pg_restore",
    "pg_basebackup",
    "kvasir check",
    "kvasir copy",
    "kvasir dump",
    "OTEL_SERVICE_NAME",  # in tests/operate/test_traces.py
)


def operated(word: str) -> str:
    """The first block of the operator's pages with this word, in front of which no other word leads to it."""
    return next(block for block in blocks(OPERATE, "sh") if next(each for each in OPERATED if each in block) == word)


def test_the_index_lists_every_page_for_operators() -> None:
    assert set(OPERATOR_PAGES) == {file.name for file in (DOCS / "operate").iterdir()} - {"README.md"}
    assert not blocks(INDEX, "sh")


def test_every_command_of_the_operators_pages_is_run_by_a_test() -> None:
    assert [operated(word) for word in OPERATED] == blocks(OPERATE, "sh")


def test_no_command_of_the_operators_pages_makes_an_option_of_a_password() -> None:
    for block in blocks(OPERATE, "sh"):
        for line in block.splitlines():
            # What `export` is given stays in the shell; what a program is given, everybody can read.
            assert "$" not in line or line.startswith("export "), line


def test_backup_restore_and_check_while_the_server_runs(first_server: Server, tmp_path: Path) -> None:
    for word in ("kvasir backup", "kvasir restore"):
        script = operated(word).replace("/var/backups/kvasir", str(tmp_path))
        run_in_the_clone(
            script, first_server, **({"KVASIR_DATA_DIR": str(tmp_path / "data")} if "restore" in word else {})
        )
    assert run_in_the_clone(operated("kvasir check"), first_server).startswith("sound")
    restored = run("store", "list", "--data-dir", str(tmp_path / "data"))
    assert first_server.store in restored.stdout


def test_moving_house_and_the_backup_of_the_new_one(first_server: Server, tmp_path: Path) -> None:
    old = str(first_server.data_dir)
    new, restored = (postgres.shared_server().new_database(f"{name}_{tmp_path.name}") for name in ("new", "restored"))
    programs = {"PATH": f"{KVASIR.parent}:{postgres._programs()}:{environment()['PATH']}"}
    made = operated("db init").replace("postgresql://kvasir@db.example.org/kvasir", new)
    assert f"version {len(MIGRATIONS)}" in run_in_the_clone(made, first_server)
    run_in_the_clone(operated("kvasir copy").replace("kvasir-data", old), first_server, KVASIR_ENGINE=new)
    for word, engine in (("pg_dump", new), ("pg_restore", restored)):
        script = operated(word).replace("kvasir.pgdump", str(tmp_path / "kvasir.pgdump"))
        script = script.replace("postgresql://kvasir@db.example.org/kvasir", engine)
        printed = run_in_the_clone(script, first_server, **programs)
    assert printed.startswith("sound")
    assert first_server.store in run_in_the_clone("kvasir store list", first_server, KVASIR_ENGINE=restored)
    dump = operated("kvasir dump").replace("kvasir-data", old)
    dump = dump.replace("kvasir.jsonl", str(tmp_path / "kvasir.jsonl")).replace("new.db", str(tmp_path / "new.db"))
    run_in_the_clone(dump, first_server)
    assert first_server.store in run_in_the_clone(f"kvasir store list --engine sqlite:{tmp_path}/new.db", first_server)


@pytest.mark.parametrize("name", PAGES)
def test_made_pages_are_fresh(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_settings_and_limits_are_documented() -> None:
    settings, limits = ((DOCS / name).read_text(encoding="utf-8") for name in ("settings.md", "limits.md"))
    for setting in SETTINGS:
        for name in (setting.option, setting.variable, setting.key):
            assert f"`{name}`" in settings
        assert (f"`{setting.option}`" in limits) == (setting.limit is not None)


FAILURES = [kind for kind in errors.KvasirError.__subclasses__() if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", FAILURES)
def test_every_failure_has_a_row_in_every_api(kind: type[errors.KvasirError]) -> None:
    assert kind in problems.FAILURES
    assert kind in responses.FAILURES
    assert kind in voximplant.FAILURES
    assert kind in statuses.OF_ERROR
    assert f"`{kind.code}`" in (DOCS / "errors.md").read_text(encoding="utf-8")
    assert kind.code in metrics.OUTCOMES


def test_every_metric_is_documented(first_server: Server) -> None:
    text = (DOCS / "operate" / "metrics.md").read_text(encoding="utf-8")
    shown = httpx.get(f"{first_server.url}/metrics", trust_env=False).text
    names = set(re.findall(r"^# TYPE (\S+)", shown, re.MULTILINE))
    assert names == set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))
    observability = (DOCS / "operate" / "observability.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(kvasir_\w+)", observability)) <= names


def prose(file: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(file: Path) -> set[str]:
    """What a link to a heading of this document may name, as GitHub has it."""
    headings = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)]*)\)", prose(file)):
        if "://" in target:
            continue
        led = file.parent / target if target else file
        assert led.exists(), f"{file.name} links to {target}"
        assert not anchor or anchor in anchors(led), f"{file.name} links to {target}#{anchor}"


#: Documents about the code.
ABOUT_CODE = [
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    DOCS / "benchmarks.md",
    *(DOCS / "decisions").iterdir(),
]
CODE = "\n".join(
    file.read_text(encoding="utf-8")
    for folder in ("src", "tests", "tools", "bench")
    for file in (ROOT / folder).rglob("*.py")
)
WORDS_OF_CODE = set(re.findall(r"\w+", CODE))


@pytest.mark.parametrize("file", ABOUT_CODE, ids=lambda file: file.name)
def test_names_of_code_in_the_documents_are_there(file: Path) -> None:
    """Names with a dot, an underscore or capitals, as `Store.refresh`; paths are looked for in test_architecture."""
    for name in re.findall(r"`([A-Za-z_][\w.]*)`", prose(file)):
        if re.search(r"[._]|[a-z][A-Z]", name) and not name.endswith((".py", ".toml", ".lock", ".yaml")):
            assert set(name.split(".")) <= WORDS_OF_CODE, f"{file.name} names {name}"


def test_every_file_of_a_database_is_documented() -> None:
    listed = re.findall(r"`kvasir\.db([\w-]*)`", section("What is in the data directory", OPERATE))
    assert listed == list(SUFFIXES)


def test_messages_quoted_for_operators_are_those_of_the_code() -> None:
    text = (DOCS / "operate" / "observability.md").read_text(encoding="utf-8")
    said = re.sub(r'"\s*f?"', "", CODE)  # texts that go on in the next line
    for quoted in re.findall(r'"([^"]+)"', section("When something is wrong", text)):
        for piece in quoted.split(" … "):
            assert piece in said, piece


def test_the_readme_says_whose_apis_these_are() -> None:
    assert "not affiliated with the services whose APIs it speaks" in README


def test_the_license_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert len(text) == 11_358
