"""`kvasir kv` in pipes: what each verb prints where, and the exit statuses."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kvasir_client import Client

from kvasir.cli.kv import feeding
from kvasir.cli.kv.feeding import without_pauses
from tests.support.cli import run
from tests.support.http_client import client as client_of_http
from tests.support.kv import Kv
from tests.support.serving import KVASIR, Server, free_ports, serving, wait_until


@pytest.mark.parametrize("text", ["9.50", '{"b": 1, "a": [1e2]}', '"\\u00e9"', "null", '"é"'])
def test_get_prints_the_stored_bytes_and_nothing_else(kv: Kv, text: str) -> None:
    assert kv("set", "a/b", text) == ""
    done = kv.run("get", "a/b")
    assert done.stdout == text.encode()
    assert done.stderr == b""


def test_a_value_from_a_pipe_or_a_file(kv: Kv, tmp_path: Path) -> None:
    kv("set", "pipe", input=b'{"n": 1.50}\n')
    kv("set", "dash", "-", input=b"[1]\n")
    (tmp_path / "value.json").write_text(' "from a file"\n')
    kv("set", "file", f"@{tmp_path}/value.json")
    assert [kv("get", key) for key in ("pipe", "dash", "file")] == ['{"n": 1.50}', "[1]", '"from a file"']
    (tmp_path / "empty").touch()
    assert "empty is empty: give a JSON value" in kv.complaint("set", "k", f"@{tmp_path}/empty", status=2)
    assert "standard input is empty" in kv.complaint("set", "k", "-", status=2, input=b" \n")


def test_texts(kv: Kv) -> None:
    kv("set", "t", "hello, é", "--text")
    assert kv("get", "t") == '"hello, é"'
    assert kv("get", "t", "--text") == "hello, é"
    kv("set", "lines", "--text", input=b"one\ntwo\n")
    assert kv("get", "lines", "--text") == "one\ntwo\n"
    kv("set", "at", "@home", "--text")
    assert kv("get", "at") == '"@home"'
    kv("set", "n", "1")
    assert "--text" in kv.complaint("get", "n", "--text", status=1)
    assert "UTF-8" in kv.complaint("set", "t", "--text", status=2, input=b"\xff")


def test_what_is_no_json_is_a_usage_error_that_names_text(kv: Kv) -> None:
    for value in ("hello", "{", "NaN", "'x'", ""):
        assert "--text" in kv.complaint("set", "k", value, status=2)
    assert "nested too deeply" in kv.complaint("set", "k", "[" * 1_100 + "]" * 1_100, status=2)
    assert kv.run("get", "k", status=4).stdout == b""


@pytest.mark.parametrize("key", ['["a/b",""]', "a", "a/b/c", '["[x"]'])
def test_any_key(kv: Kv, key: str) -> None:
    kv("set", key, "1")
    assert kv("list") == f"{key}\n"
    assert kv("get", key) == "1"
    kv("delete", key)
    assert kv("list") == ""


def test_what_is_no_key_names_the_form_that_takes_any(kv: Kv) -> None:
    assert '["a",""]' in kv.complaint("get", "a/", status=2)
    assert "JSON array" in kv.complaint("get", "[", status=2)


def test_the_options_of_set(kv: Kv) -> None:
    made = kv.json("set", "k", "1", "--ttl", "24h", "--refresh", "--metadata", '{"colour":"grün"}')
    entry = kv.json("get", "k", "--peek")
    assert entry["versionstamp"] == made["versionstamp"]
    assert (entry["refresh"], entry["metadata"]) == (86_400_000, {"colour": "grün"})
    kv("set", "k", "2", "--keep", "--if-version", made["versionstamp"])
    kept = kv.json("get", "k", "--peek")
    assert (kept["value"], kept["expires_at"], kept["metadata"]) == (2, entry["expires_at"], {"colour": "grün"})
    kv("set", "k", "3", "--keep", "--ttl", "1h")
    assert kv.json("get", "k")["metadata"] == {"colour": "grün"}
    kv("set", "k", "4", "--if-present", "--expires-at", "2100-01-01T00:00:00Z")
    assert kv.json("get", "k")["expires_at"] == "2100-01-01T00:00:00.000Z"
    assert "JSON object" in kv.complaint("set", "k", "1", "--metadata", "[]", status=2)
    assert "24h" in kv.complaint("set", "k", "1", "--ttl", "24", status=2)
    assert "instant" in kv.complaint("set", "k", "1", "--expires-at", "tomorrow", status=2)


def test_peek_does_not_extend_a_sliding_life(kv: Kv) -> None:
    kv("set", "k", "1", "--ttl", "1h", "--refresh")
    first = kv.json("get", "k", "--peek")["expires_at"]
    assert kv.json("get", "k", "--peek")["expires_at"] == first
    kv("get", "k")
    assert kv.json("get", "k", "--peek")["expires_at"] > first


def test_a_negative_number_is_a_value_and_no_option(kv: Kv) -> None:
    kv("set", "n", "-7", "--ttl", "1h")
    assert kv("get", "n") == "-7"
    kv("set", "--", "n", "-0.5e1")
    assert kv("get", "n") == "-0.5e1"
    assert "No such option" in kv.complaint("set", "n", "-x", status=2)
    for flag, stored in (("--text", '"-5"'), ("--keep", "-5")):
        for words in (("n", flag, "-5"), (flag, "n", "-5"), ("n", "-5", flag)):
            kv("set", *words)
            assert kv("get", "n") == stored
    kv("set", "--ttl", "1h", "n", "--metadata", "{}", "--keep", "-6")
    assert kv("get", "n") == "-6"
    assert kv("incr", "n", "--by", "-5") == "-11\n"
    assert kv("incr", "--initial", "-5", "m", "--by", "-5") == "-10\n"
    assert "No such option" in kv.complaint("set", "--text", "-5", status=2)


def test_a_dash_behind_two_dashes_is_a_text(kv: Kv) -> None:
    kv("set", "k", "--text", "--", "-", input=b"from the pipe")
    assert kv("get", "k") == '"-"'
    kv("set", "--text", "--", "k", "--", input=b"from the pipe")
    assert kv("get", "k") == '"--"'
    for words in (("k", "-", "--text"), ("--text", "k", "-")):
        kv("set", *words, input=b"from the pipe")
        assert kv("get", "k") == '"from the pipe"'
    kv("set", "--", "k", "-", input=b"5")
    assert kv("get", "k") == "5"


def test_metadata_goes_to_the_server_as_it_is(kv: Kv, server: Server) -> None:
    with Client(server.url, key=server.key) as client:
        space = client.store(kv.variables["KVASIR_STORE"]).show().id
    long = '"long":"%s"' % ("x" * 5_000)
    for between, more in (("", '"short":1'), ("\r\n", '"short":1'), ("\r\n", long)):
        text = f'{{"p":0.12345678901234567890123,{between}"a":1, "b":2,"text":"é🍯\x7f",{more}}}'
        kv("set", "k", "1", "--metadata", text)
        parameters = {"key": '["k"]', "form": "entry"}
        answer = client_of_http.get(f"{server.url}/v1/spaces/{space}/entry", params=parameters, headers=server.headers)
        stored = answer.text.partition('"metadata":')[2]
        in_header = text.replace("é🍯\x7f", "\\u00e9\\ud83c\\udf6f\\u007f")
        assert stored.startswith(text if between else in_header)
        (told,) = kv("list", "--json").splitlines()
        assert f'"metadata":{stored.rpartition("}")[0]}'.replace("\r\n", "  ").replace("\x7f", "\\u007f") in told
    assert "twice" in kv.complaint("set", "k", "1", "--metadata", '{"a":1,"a":2}', status=2)


def test_the_exit_status_tells_what_went_wrong(kv: Kv, server: Server) -> None:
    kv("set", "k", "1")
    assert "no entry" in kv.complaint("get", "no", status=4)
    assert "no entry" in kv.complaint("delete", "no", status=4)
    for wrong in ("nonsense", "0" * 19, "0" * 19 + "A", "f" * 20, ""):
        for command in (("set", "k", "2"), ("delete", "k"), ("delete", "k", "--dry-run")):
            assert "--if-version: " in kv.complaint(*command, "--if-version", wrong, status=2)
    kv("set", "above/below", "1")
    assert "--prefix" in kv.complaint("delete", "above", status=4)
    kv("delete", "above/below")
    assert "no entry" in kv.complaint("touch", "no", "--ttl", "1h", status=4)
    assert "no-such" in kv.complaint("get", "k", "--store", "no-such", status=4)
    assert "the key exists already" in kv.complaint("set", "k", "2", "--if-absent", status=5)
    kv.complaint("delete", "k", "--if-version", "0" * 20, status=5)
    assert "key" in kv.complaint("get", "k", "--key", "kv_wrong", status=6)
    assert "reached" in kv.complaint("get", "k", "--url", f"http://127.0.0.1:{free_ports(1)[0]}", status=3)
    assert kv("get", "k") == "1"
    assert "No such option" in kv.complaint("get", "k", "--no-such-option", status=2)


def test_an_unknown_outcome_has_a_status_of_its_own(kv: Kv, server: Server) -> None:
    """Somebody takes the request, or a part of it, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(10)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert "read before" in kv.complaint("set", "k", "1", "--url", url, "--store", server.store, status=7)
        thread.join()


def test_delete_with_a_prefix_counts_first_and_asks(kv: Kv) -> None:
    for key in ("a", "a/1", "a/2", "ab", "b"):
        kv("set", key, "1")
    assert "--yes" in kv.complaint("delete", "a", "--prefix", status=2)
    assert kv.json("delete", "a", "--prefix", "--dry-run") == {"would_delete": 3}
    assert kv("count") == "5\n"
    assert kv.json("delete", "a", "--prefix", "--yes") == {"deleted": 3}
    assert kv("list") == "ab\nb\n"
    kv.complaint("delete", "a", "--prefix", "--yes", status=4)
    assert kv.json("delete", "/", "--prefix", "--yes") == {"deleted": 2}
    assert kv.json("count") == {"count": 0}


def test_a_prefix_that_is_empty_by_mistake_deletes_nothing(kv: Kv) -> None:
    kv("set", "k", "1")
    for options in (("--yes",), ("--dry-run",), ()):
        assert "`/`" in kv.complaint("delete", "", "--prefix", *options, status=2)
    assert kv("count") == "1\n"


def test_a_dry_run_of_delete_minds_the_condition(kv: Kv) -> None:
    versionstamp = kv.json("set", "k", "1")["versionstamp"]
    wrong = ("--if-version", "0" * 20)
    assert kv.json("delete", "k", "--if-version", versionstamp, "--dry-run") == {"would_delete": 1}
    for key in ("k", "no"):
        kv.complaint("delete", key, *wrong, status=5)
        kv.complaint("delete", key, *wrong, "--dry-run", status=5)
    kv.complaint("delete", "k", "--if-version", "é", "--dry-run", status=2)
    assert kv("get", "k") == "1"


def test_list_and_its_filters(kv: Kv) -> None:
    for n, key in enumerate(("b", "a/2", "a/1")):
        kv("set", key, str(n), "--metadata", json.dumps({"n": n}), *(["--ttl", "1h"] if n else []))
    assert kv("list") == "a/1\na/2\nb\n"
    assert kv("list", "a/") == "a/1\na/2\n"
    assert kv("list", "--order", "oldest", "--limit", "2") == "b\na/2\n"
    assert kv("list", "--metadata", '{"n": 1}') == "a/2\n"
    assert kv("list", "--created-from", "2100-01-01T00:00:00Z") == ""
    assert kv("list", "--created-to", "2100-01-01T00:00:00Z", "b") == "b\n"
    (line,) = kv("list", "--long", "a/1").splitlines()
    assert re.fullmatch(r"a/1\t[0-9a-f]{20}\t20\d\d-.*Z\t20\d\d-.*Z", line)
    first, *_ = [json.loads(line) for line in kv("list", "--json").splitlines()]
    assert first["key"] == ["a", "1"]
    assert "value" not in first
    assert json.loads(kv("list", "b", "--json", "--values"))["value"] == 0
    assert "--json" in kv.complaint("list", "--values", status=2)


def test_digits_and_line_ends_of_values_survive_json_lines(kv: Kv) -> None:
    kv("set", "k", '{"a":\n 9.50}')
    assert '"value":{"a":  9.50}' in kv("list", "--json", "--values")


def test_tree(kv: Kv) -> None:
    for key in ("a", "a/1", "a/2/x/y", "b", '["c/d","e"]'):
        kv("set", key, "1")
    assert kv("tree") == ('/\n├── a/ *\n│   ├── 1\n│   └── 2/\n│       └── x/ …\n├── b\n└── ["c/d"]/\n    └── e\n')
    assert kv("tree", "a", "--depth", "1", "--counts") == "a (3)\n├── 1\n└── 2/ (1) …\n"
    lines = [json.loads(line) for line in kv("tree", "--json", "--depth", "1", "--counts").splitlines()]
    assert lines[0] == {"key": ["a"], "entry": True, "below": True, "count": 3}
    assert lines[1] == {"key": ["b"], "entry": True, "below": False}


def test_incr_and_touch(kv: Kv) -> None:
    assert kv("incr", "n") == "1\n"
    assert kv("incr", "n", "--by", str(2**62)) == f"{2**62 + 1}\n"
    assert kv.json("incr", "n", "--by", str(-(2**62))) == {"value": 1}
    assert kv("incr", "m", "--initial", "10", "--ttl", "1h") == "11\n"
    kv("set", "text", '"x"')
    kv.complaint("incr", "text", status=2)
    kv("touch", "n", "--expires-at", "2100-01-01T00:00:00Z")
    kv("touch", "n", "--ttl", "1h", "--extend")
    assert kv.json("get", "n")["expires_at"] == "2100-01-01T00:00:00.000Z"
    kv("touch", "n", "--never")
    assert kv.json("get", "n")["expires_at"] is None
    assert "--never" in kv.complaint("touch", "n", status=2)


def test_a_refusal_names_the_option(kv: Kv) -> None:
    for option in ("--by", "--initial"):
        said = kv.complaint("incr", "n", option, "9" * 20, status=2)
        assert said.startswith(f"kvasir: {option} must be an integer")
    past = ("--expires-at", "2020-01-01T00:00:00Z")
    for command in (("incr", "n"), ("touch", "n"), ("set", "n", "1")):
        assert kv.complaint(*command, *past, status=2).startswith("kvasir: --expires-at must be in the future")


def test_export_and_import(kv: Kv, tmp_path: Path) -> None:
    kv("set", "a/1", "9.50", "--metadata", '{"m":1}', "--ttl", "1h", "--refresh")
    kv("set", "b", '"x"')
    file = tmp_path / "all.ndjson"
    done = kv.run("export", "--output", str(file))
    assert (done.stdout, done.stderr) == (b"", f"wrote 2 entries to {file}\n".encode())
    assert kv("export") == file.read_text()
    assert kv("export", "a").count("\n") == 2

    def shown() -> list[dict[str, object]]:
        entries = [json.loads(line) for line in kv("list", "--json", "--values").splitlines()]
        return [{n: v for n, v in entry.items() if n not in ("versionstamp", "created_at")} for entry in entries]

    before = shown()
    kv("delete", "/", "--prefix", "--yes")
    assert kv.json("import", str(file), "--dry-run")["set"] == 2
    assert kv("count") == "0\n"
    done = kv.run("import", input=file.read_bytes())
    assert (done.stdout, done.stderr) == (b"", b"set 2, kept 0, refused 0\n")
    assert shown() == before
    assert kv.json("import", str(file), "--mode", "keep")["kept"] == 2
    assert "line 1" in kv.complaint("import", str(file), "--mode", "fail", status=5)


def test_an_import_says_what_it_refuses(kv: Kv) -> None:
    done = kv.run("import", status=1, input=b'{"key":["a"],"value":1}\nno\n')
    assert b"refused 1" in done.stderr
    assert b"\nline 2: " in done.stderr
    assert kv.json("count") == {"count": 1}
    cut = kv("export").splitlines()[0] + "\n"
    for options, said in (((), b"its lines are imported"), (("--dry-run",), b"would be imported")):
        assert said in kv.run("import", *options, status=1, input=cut.encode()).stderr
    assert kv.json("import", status=1, input=cut.encode())["whole"] is None
    assert kv.json("import", input=kv.run("export").stdout)["whole"] is True
    wrong = cut + '{"end":{"entries":2}}\n'
    assert kv.json("import", status=1, input=wrong.encode())["whole"] is False
    assert b"not whole" in kv.run("import", status=1, input=wrong.encode()).stderr


def test_an_import_that_ends_in_the_middle_has_changed_something(kv: Kv) -> None:
    lines = [b'{"key":["k","%d"],"value":1}\n' % n for n in range(1_500)]
    repeated = b"".join([*lines, lines[0]])
    assert b"stay imported" in kv.run("import", "--mode", "fail", status=1, input=repeated).stderr
    left = kv.json("count")["count"]
    assert left >= 500
    again = ("import", "--mode", "fail")
    kv.run(*again, status=5, input=lines[0])
    # A dry run changes nothing, however far it comes.
    kv("delete", "/", "--prefix", "--yes")
    kv("set", "k/1499", "1")
    kv.run(*again, "--dry-run", status=5, input=b"".join(lines))
    assert kv.json("count")["count"] == 1


def test_what_a_pipe_has_is_imported_while_more_is_to_come(kv: Kv) -> None:
    command = [str(KVASIR), "kv", "import"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=kv.environment(None)) as process:
        assert process.stdin is not None
        # A batch of the server's.
        process.stdin.write(b"".join(b'{"key":["k","%d"],"value":1}\n' % n for n in range(500)))
        process.stdin.flush()
        wait_until(lambda: kv("count") == "500\n", "the first batch is imported")
        assert process.communicate(b'{"key":["last"],"value":1}', timeout=60)[1] == b"set 501, kept 0, refused 0\n"
    assert kv("count") == "501\n"


def test_a_pause_between_lines_is_filled_with_what_means_nothing(kv: Kv) -> None:
    more, last = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b'{"key":["a"],"value":1}\nno\n{"key":["b"],'
        more.wait()
        yield b'"value":" x"}\n'
        last.wait()
        yield b"no\n"

    fed = without_pauses(slowly(), 0.01)
    first = next(fed)
    # The line that has begun comes when it is whole.
    assert (first, next(fed), next(fed)) == (b'{"key":["a"],"value":1}\nno\n', b" ", b" ")
    more.set()
    pieces = [first, b" ", *itertools.takewhile(bytes.isspace, fed)]
    pieces += [b'{"key":["b"],"value":" x"}\n', next(fed)]
    last.set()
    pieces += fed
    done = kv.run("import", status=1, input=b"".join(pieces)).stderr.decode()
    assert re.search(r"set 2, kept 0, refused 2\nline 2: .*\nline 4: ", done)
    assert kv("get", "b") == '" x"'


def test_a_line_that_does_not_end_is_not_held_back_for_ever() -> None:
    part = b"x" * (feeding.HELD_BYTES // 2 + 1)
    waits = threading.Event()

    def endless() -> Iterator[bytes]:
        yield part
        yield part
        waits.wait()
        yield b"\nend"

    fed = without_pauses(endless(), 0.01)
    assert next(fed) == part + part
    threading.Timer(0.05, waits.set).start()
    # No space may come in the midst of the line.
    assert b"".join(fed).startswith(b"\n")


def test_failures_of_what_is_imported_are_told() -> None:
    def broken() -> Iterator[bytes]:
        yield b"a\n"
        raise OSError("the disk is gone")

    fed = without_pauses(broken())
    assert next(fed) == b"a\n"
    with pytest.raises(OSError, match="gone"):
        next(fed)


def test_an_export_from_another_service_prints_nothing(kv: Kv, server: Server) -> None:
    """A portal that answers everything with a page of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def portal() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                page = b"<html>Welcome</html>"
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
                connection.sendall(head % len(page) + page)

        thread = threading.Thread(target=portal)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert "Kvasir server" in kv.complaint("export", "--url", url, "--store", server.store, status=1)
        thread.join()


def test_the_help_of_import_names_one_default(kv: Kv) -> None:
    assert kv("import", "--help").count("default: standard input") == 1
    assert "default: -" not in kv("import", "--help")


def test_watch_prints_lines_of_json(kv: Kv) -> None:
    command = [str(KVASIR), "kv", "watch", "a", "--limit", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=kv.environment(None)) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        kv("set", "other", "1")
        kv("set", "a/b", '{"n": 9.50}')
        line = process.stdout.readline()
        assert b'"value":{"n": 9.50}' in line
        told = json.loads(line)
        assert (told["event"], told["key"], told["expires_at"]) == ("set", ["a", "b"], None)
        kv("delete", "a/b")
        told = json.loads(process.stdout.readline())
        assert (told["event"], told["key"]) == ("delete", ["a", "b"])
        assert process.wait(60) == 0
    assert "--only" in kv.complaint("watch", "a", "--only", "b", status=2)


# -- where to ask --------------------------------------------------------------------------------------------------


def test_a_certificate_is_checked(tmp_path: Path) -> None:
    run("dev-cert", str(tmp_path / "tls"))
    (port,) = free_ports(1)
    names = {name: str(tmp_path / "tls" / f"{name}.pem") for name in ("ca", "cert", "key")}
    options = ("--https", f"127.0.0.1:{port}", "--tls-cert", names["cert"], "--tls-key", names["key"])
    with serving(tmp_path, *options) as server:
        kv = Kv(server, "default", tmp_path)
        kv.variables["KVASIR_URL"] = f"https://localhost:{port}"
        assert "certificate" in kv.complaint("set", "k", "1", status=3)
        trusting = {"SSL_CERT_FILE": names["ca"]}
        kv("set", "k", "1", variables=trusting)
        assert kv("get", "k", variables=trusting) == "1"


def test_who_has_seen_enough_may_leave(kv: Kv, server: Server) -> None:
    with Client(server.url, key=server.key) as client:
        lines = (b'{"key":["%d","%b"],"value":1}\n' % (n, b"x" * 50) for n in range(5_000))
        client.store(kv.variables["KVASIR_STORE"]).load(lines)
    command = ["sh", "-c", f"{KVASIR} kv list | head -1"]
    done = subprocess.run(command, env=kv.environment(None), capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("0/" + "x" * 50 + "\n", "")


def test_contexts(kv: Kv, server: Server, tmp_path: Path) -> None:
    kv("set", "k", '"here"')
    none = {"KVASIR_URL": "", "KVASIR_KEY": "", "KVASIR_STORE": ""}
    store = kv.variables["KVASIR_STORE"]
    add = ("add", "work", "--url", server.url, "--store", store, "--key", "-")
    assert b"added work" in kv.run(*add, group="context", input=server.key.encode() + b"\n", variables=none).stderr
    file = tmp_path / "kvasir" / "contexts.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert kv("get", "k", variables=none) == '"here"'
    kv.run("add", "home", "--key", "kv_other", "--url", "http://127.0.0.1:1", group="context")
    listed = kv.run("list", group="context", variables=none).stdout.decode()
    assert re.search(r"^\*\s+work\s+http", listed, re.MULTILINE)
    assert "home" in listed
    assert server.key not in listed
    assert "kv_other" not in kv.run("list", "--json", group="context").stdout.decode()
    kv.run("use", "home", group="context")
    kv.complaint("get", "k", "--store", "s", status=3, variables=none)
    assert kv("get", "k", "--context", "work", variables=none) == '"here"'
    assert b"home, " in kv.run("use", "nowhere", group="context", status=4).stderr.replace(b"work, home", b"home, ")
    kv.run("remove", "home", group="context")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "kv_other" not in file.read_text()


def test_a_key_from_the_variable_is_kept_for_the_address_beside_it(kv: Kv, tmp_path: Path) -> None:
    def kept(*options: str, input: bytes = b"") -> tuple[str, str]:
        variables = {"KVASIR_URL": "http://127.0.0.1:1", "KVASIR_KEY": "kv_variable"}
        kv.run("add", "here", *options, group="context", input=input, variables=variables)
        found = json.loads((tmp_path / "kvasir" / "contexts.json").read_bytes())["contexts"]["here"]
        return found["url"], found["key"]

    assert kept() == ("http://127.0.0.1:1", "kv_variable")
    assert kept("--url", "http://127.0.0.1:2") == ("http://127.0.0.1:2", "kv_variable")
    assert kept("--key", "kv_given") == ("http://127.0.0.1:8901", "kv_given")
    assert kept("--key", "-", input=b"kv_piped\n") == ("http://127.0.0.1:8901", "kv_piped")


def test_an_empty_input_is_no_access_key(kv: Kv, tmp_path: Path) -> None:
    for nothing in (b"", b"\n"):
        refused = kv.run("add", "here", "--key", "-", group="context", input=nothing, status=2)
        assert b"no access key on standard input" in refused.stderr
    assert not (tmp_path / "kvasir").exists()


def test_a_kept_key_is_sent_to_its_own_server_alone(kv: Kv, server: Server) -> None:
    none = {"KVASIR_URL": "", "KVASIR_KEY": ""}
    kv.run("add", "one", "--key", "-", "--url", "http://127.0.0.1:1", group="context", input=server.key.encode())
    assert "no access key" in kv.complaint("get", "k", "--url", server.url, status=2, variables=none)
    # The variables are a pair of their own: the key in them does not go to the server of the context.
    kv("set", "k", "1")
    assert kv("get", "k") == "1"


def test_not_even_a_context_that_is_named_lends_its_key(kv: Kv, server: Server) -> None:
    kv("set", "k", "1")
    kv.run("add", "one", "--key", "-", "--url", "http://127.0.0.1:1/", group="context", input=server.key.encode())
    kv.run("add", "here", "--key", "-", "--url", server.url, group="context", input=server.key.encode())
    for none in ({}, {"KVASIR_URL": "", "KVASIR_KEY": ""}):
        said = kv.complaint("get", "k", "--context", "one", "--url", server.url, status=2, variables=none)
        assert "'one'" in said
        assert "--key" in said
    given = ("get", "k", "--context", "one", "--url", server.url, "--key", server.key)
    assert kv(*given) == "1"
    # The same address in other letters is no other server.
    same = server.url.replace("http:", "HTTP:") + "/"
    assert kv("get", "k", "--context", "here", "--url", same) == "1"
    assert kv("get", "k", "--url", same, variables={"KVASIR_KEY": "", "KVASIR_URL": ""}, status=2) == ""
    kv.run("use", "here", group="context")
    assert kv("get", "k", "--url", same, variables={"KVASIR_KEY": "", "KVASIR_URL": ""}) == "1"


def test_the_variable_names_the_store_where_a_context_does_not(kv: Kv, server: Server) -> None:
    kv("set", "k", "1")
    kv.run("add", "bare", "--key", "-", "--url", server.url, group="context", input=server.key.encode())
    assert kv("get", "k", "--context", "bare") == "1"
    default = ("--store", "default")
    kv.run("add", "full", "--key", "-", "--url", server.url, *default, group="context", input=server.key.encode())
    kv.complaint("get", "k", "--context", "full", status=4)


def test_the_json_of_contexts_is_one_line_each(kv: Kv, server: Server) -> None:
    def told(*arguments: str) -> list[dict[str, object]]:
        lines = kv.run(*arguments, "--json", group="context").stdout.decode().splitlines()
        return [json.loads(line) for line in lines]

    one = {"name": "one", "url": server.url, "store": None, "current": True}
    two = {"name": "zwei é", "url": server.url, "store": "s", "current": False}
    assert told("list") == []
    assert told("add", "one", "--url", server.url) == [one]
    assert told("add", "zwei é", "--url", server.url, "--store", "s") == [two]
    assert told("list") == [one, two]
    assert told("use", "zwei é") == [two | {"current": True}]
    assert told("remove", "zwei é") == [two]


def test_the_command_that_uses_a_context_can_be_pasted(kv: Kv, server: Server) -> None:
    kv.run("add", "one", "--url", server.url, group="context")
    for name in ("a b", "it's", "$HOME", "-x"):
        said = kv.run("add", "--url", server.url, "--", name, group="context").stderr.decode()
        (command,) = re.findall(r"`kvasir context (.*)` uses it", said)
        kv.run(*shlex.split(command), group="context")
        (current,) = re.findall(r"^\*  (.*?)  ", kv.run("list", group="context").stdout.decode(), re.MULTILINE)
        assert current.strip() == name


def test_who_has_removed_the_context_in_use_is_told_of_the_others(kv: Kv, server: Server) -> None:
    none = {"KVASIR_URL": "", "KVASIR_KEY": ""}
    for name in ("one", "two", "three"):
        kv.run("add", name, "--url", server.url, group="context")
    kv.run("remove", "one", group="context")
    said = kv.complaint("get", "k", status=2, variables=none)
    assert "`kvasir context use NAME`" in said
    assert "two, three" in said
    # Who names another server is not helped by the contexts of these.
    assert "context use" not in kv.complaint("get", "k", status=2, variables=none | {"KVASIR_URL": "http://other"})


def test_names_of_contexts(kv: Kv, server: Server) -> None:
    for name in ("", " ", "a\nb", "\x1b[2J"):
        assert b"name" in kv.run("add", name, "--url", server.url, group="context", status=2).stderr
    for verb in ("use", "remove"):
        assert b"no context" in kv.run(verb, "nowhere", group="context", status=4).stderr
    assert "no context" in kv.complaint("get", "k", "--context", "nowhere", status=4)


def test_contexts_may_be_kept_elsewhere(kv: Kv, server: Server, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    (tmp_path / "kvasir").mkdir()
    (tmp_path / "kvasir" / "contexts.json").symlink_to(kept)
    for name in ("one", "two"):
        kv.run("add", name, "--url", server.url, group="context")
    assert (tmp_path / "kvasir" / "contexts.json").is_symlink()
    assert list(json.loads(kept.read_bytes())["contexts"]) == ["one", "two"]


def test_others_who_can_read_the_access_keys_are_told_of(kv: Kv, server: Server, tmp_path: Path) -> None:
    kv("set", "k", "1")
    kv.run("add", "one", "--url", server.url, group="context")
    file = tmp_path / "kvasir" / "contexts.json"
    none = {"KVASIR_KEY": "", "KVASIR_URL": ""}
    assert b"chmod" not in kv.run("get", "k", variables=none).stderr
    file.chmod(0o640)
    assert b"chmod 600" in kv.run("get", "k", variables=none).stderr
    assert b"chmod 600" in kv.run("list", group="context").stderr
    assert b"chmod" not in kv.run("get", "k").stderr
    kv.run("use", "one", group="context")
    assert file.stat().st_mode & 0o777 == 0o600


def test_without_a_key_it_says_how_to_get_one(kv: Kv, server: Server, tmp_path: Path) -> None:
    none = {"KVASIR_URL": "", "KVASIR_KEY": "", "KVASIR_DATA_DIR": str(tmp_path)}
    assert "kvasir context add" in kv.complaint("get", "k", status=2, variables=none)
    beside = kv.complaint("get", "k", status=2, variables=none | {"KVASIR_DATA_DIR": str(server.data_dir)})
    if (server.data_dir / "kvasir.db").exists():
        assert "kvasir key create" in beside
    assert len(beside.splitlines()) == 1
    assert "KVASIR_STORE" in kv.complaint("get", "k", status=2, variables={"KVASIR_STORE": ""})


def test_a_broken_file_of_contexts_is_told(kv: Kv, tmp_path: Path) -> None:
    (tmp_path / "kvasir").mkdir()
    context = '{"contexts": {"a": {"url": %s, "key": %s}}, "current": %s}'
    wrong = [context % values for values in (('"u"', "5", '"a"'), ("{}", '"k"', '"a"'), ('"u"', '"k"', "[]"))]
    for text in ("{", "[]", '{"contexts": [1]}', '{"contexts": {"a": 5}}', "[" * 100_000, "\xff", *wrong):
        (tmp_path / "kvasir" / "contexts.json").write_text(text, encoding="latin-1")
        said = kv.complaint("get", "k", status=2, variables={"KVASIR_KEY": "", "KVASIR_URL": ""})
        assert "contexts.json is not a file of contexts" in said
        assert b"not a file of contexts" in kv.run("list", group="context", status=2).stderr


def test_a_short_command_loads_no_more_than_it_needs(kv: Kv) -> None:
    kv("set", "k", "1")
    told = kv.run("get", "k", variables={"PYTHONPROFILEIMPORTTIME": "1"}).stderr.decode()
    loaded = {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")}
    heavy = {"asyncio", "kvasir.cli.kv.editing", "msgspec", "kvasir.config.table", "kvasir.store", "apsw", "ulid"}
    heavy |= {"pydantic", "rich", "anyio.streams", "h2.events"}
    assert "httpx2" in loaded
    assert not loaded & heavy
