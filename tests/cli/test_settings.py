"""Settings: four sources and their order, one parser a row, errors that say what to do."""

from __future__ import annotations

import atexit
import dataclasses
import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kvasir.cli import local_authority
from kvasir.config.database_url import SSL_MODES
from kvasir.config.loading import load
from kvasir.config.parsers import split_address
from kvasir.config.table import SETTINGS, Config, Setting
from kvasir.errors import Invalid
from kvasir.limits import Limits


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory without a kvasir.toml, unless the test writes one."""
    monkeypatch.chdir(tmp_path)


#: By what the text looks like: three good values, each unlike its neighbours.
SAMPLES = {
    "DIR": ("one", "two", "three"),
    "FILE": ("one.pem", "two.pem", "three.pem"),
    "URL": ("sqlite:one.db", "sqlite:", "memory:"),
    "HOST:PORT": ("127.0.0.1:5001", "[::1]:5002", "localhost:5003"),
    "ULID": ("01JZX0W7M2Q4T8V6B3N5C9D1EA", "01JZX0W7M2Q4T8V6B3N5C9D1EB", "01JZX0W7M2Q4T8V6B3N5C9D1EC"),
    "FILE|URL": ("https://a.example/", "https://b.example/", "https://c.example/"),
    "TEXT": ("one-0123456789-0123456789-0123456789", "two-0123456789-0123456789-0123456789", "x" * 32),
    "CLAIM": ("one", "two", "three"),
    "LEVEL": ("debug", "error", "warning"),
    "flag": ("true", "false", "true"),
    "ms": ("500", "1", "86_400_000"),
}
LISTS = {
    "jwt_algorithms": ("ES256,RS512", "PS256", "EdDSA"),
    "cors_origin": ("https://a.example,https://b.example", "http://c.example:8080", "https://d.example"),
    "nemesis_origins": ("https://a,https://b", "c", "d"),
}


def samples(setting: Setting) -> tuple[str, ...]:
    """Three good texts for a row, each unlike its neighbours."""
    if setting.unit == "LIST":
        return LISTS[setting.name]
    if setting.unit in SAMPLES:
        return SAMPLES[setting.unit]
    if "|" in setting.unit:
        choices = setting.unit.split("|")
        return (choices[0], choices[1], choices[0])
    assert setting.default is not None
    default = setting.parse(setting.default)
    return tuple(str(default + step) for step in (1, 2, 3))


def value_of(config: Config, setting: Setting) -> Any:
    value: Any = config
    for field in setting.place:
        value = getattr(value, field)
    return value


def toml(setting: Setting, text: str) -> str:
    """A file that says this, with a value of TOML's own kind."""
    value = setting.parse(text)
    if isinstance(value, tuple):
        said = "[" + ", ".join(f'"{word}"' for word in value) + "]"
    else:
        said = text.lower() if isinstance(value, bool | int | float) else f'"{text}"'
    table, _, name = setting.key.rpartition(".")
    return f"[{table}]\n{name} = {said}\n" if table else f"{name} = {said}\n"


@cache
def certificate(number: int = 1) -> Path:
    """A directory with `cert.pem` and `key.pem`; another one for each number."""
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory)
    local_authority.write(directory, datetime.now(UTC))
    return directory


@pytest.fixture
def needed(tmp_path: Path) -> dict[str, str | None]:
    """What some settings need beside them."""
    combined = tmp_path / "combined.pem"
    combined.write_bytes(b"".join((certificate() / name).read_bytes() for name in ("cert.pem", "key.pem")))
    for name in SAMPLES["FILE"]:
        (tmp_path / name).write_bytes(combined.read_bytes())
    return {"jwt_issuer": "i", "jwt_audience": "a", "tls_cert": "combined.pem", "tls_key": "combined.pem"}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_option_then_variable_then_file_then_default(setting: Setting, needed: dict[str, str | None]) -> None:
    option, variable, filed = samples(setting)
    others = {name: text for name, text in needed.items() if name != setting.name}
    Path("kvasir.toml").write_text(toml(setting, filed))
    environ = {setting.variable: variable}
    assert value_of(load(others | {setting.name: option}, environ), setting) == setting.parse(option)
    assert value_of(load(others, environ), setting) == setting.parse(variable)
    assert value_of(load(others, {}), setting) == setting.parse(filed)
    Path("kvasir.toml").unlink()
    default = None if setting.default is None else setting.parse(setting.default)
    assert value_of(load(others, {}), setting) == default


def test_no_settings_at_all_are_the_defaults() -> None:
    assert load({}, {}) == Config()
    assert Config().limits == Limits()


def test_every_field_and_every_limit_has_a_row() -> None:
    limits = ("limits", "websocket_limits", "nemesis_limits", "voximplant_limits")
    places: set[tuple[str, ...]] = {(field.name,) for field in dataclasses.fields(Config) if field.name not in limits}
    for holder in limits:
        places |= {(holder, field.name) for field in dataclasses.fields(getattr(Config(), holder))}
    assert {setting.place for setting in SETTINGS} == places
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS) == len(places)
    assert all(setting.help and setting.unit for setting in SETTINGS)


def faults(options: dict[str, str | None], environ: dict[str, str] | None = None) -> dict[str, str]:
    with pytest.raises(Invalid) as refusal:
        load(options, environ or {})
    return dict(refusal.value.fields)


#: Texts that are refused, and a word that must be in the answer.
BAD = [
    ("data_dir", "", "empty"),
    ("engine", "postgres:x", "postgresql://"),
    ("engine", "memory:x", "sqlite:"),
    ("engine", "kvasir.db", "sqlite:"),
    ("durability", "some", "full"),
    ("http", "8901", "HOST:PORT"),
    ("http", "127.0.0.1:65536", "HOST:PORT"),
    ("http", ":8901", "HOST:PORT"),
    ("http", "127.0.0.1:x", "HOST:PORT"),
    ("http", "", "HOST:PORT"),
    ("workers", "0", "1 or more"),
    ("workers", "257", "256 or less"),
    ("workers", "two", "whole number"),
    ("workers", "1.5", "whole number"),
    ("admin_key", "x" * 31, "32"),
    ("admin_key", "x" * 32 + " y", "spaces"),
    ("admin_key", "ü" * 32, "ASCII"),
    ("organisation_id", "acme", "ULID"),
    ("organisation_id", "8" + "Z" * 25, "ULID"),
    ("jwt_algorithms", "HS256", "RS256"),
    ("jwt_algorithms", "RS256,none", "RS256"),
    ("jwt_algorithms", "", "RS256"),
    ("drain_seconds", "0", "more than 0"),
    ("drain_seconds", "nan", "more than 0"),
    ("drain_seconds", "inf", "at most"),
    ("drain_seconds", "soon", "number"),
    ("access_log", "maybe", "true or false"),
    ("log_level", "loud", "debug"),
    ("limit_value_bytes", "0", "1 or more"),
    ("limit_value_bytes", "1 MiB", "whole number"),
    ("limit_body_seconds", "-1", "more than 0"),
    ("nemesis_max_payload", "63", "64 or more"),
    ("nemesis_idle_seconds", "86401", "at most"),
    ("voximplant_page_maximum", "1001", "1,000 or less"),
]


@pytest.mark.parametrize(("name", "text", "word"), BAD)
def test_a_bad_value_is_named_the_way_it_was_given(name: str, text: str, word: str) -> None:
    setting = next(setting for setting in SETTINGS if setting.name == name)
    assert word in faults({name: text})[setting.option]
    if text:
        assert word in faults({}, {setting.variable: text})[setting.variable]


def test_all_faults_are_told_at_once() -> None:
    assert set(faults({"workers": "x"}, {"KVASIR_ENGINE": "y"})) == {"--workers", "KVASIR_ENGINE"}


def test_a_secret_is_not_repeated() -> None:
    assert "hunter2" not in str(faults({"admin_key": "hunter2"}))


#: Options that contradict each other, and the setting that is named.
CONTRADICTIONS: list[tuple[dict[str, str | None], str, str]] = [
    ({"http": "off", "https": "off", "nemesis": "off"}, "http", "nothing"),
    ({"http": "127.0.0.1:1987"}, "http", "differ"),
    ({"https": "127.0.0.1:8443"}, "tls_cert", "dev-cert"),
    ({"https": "127.0.0.1:8443", "tls_cert": "none.pem"}, "tls_cert", "none.pem"),
    ({"engine": "memory:", "workers": "2"}, "workers", "memory:"),
    ({"engine": "postgresql://x", "limit_key_bytes": "2601"}, "limit_key_bytes", "2,600"),
    ({"engine": "postgresql://x", "limit_store_name_characters": "651"}, "limit_store_name_characters", "650"),
    ({"jwks": "https://a.example/"}, "jwks", "jwt_issuer"),
    ({"jwks": "none.json", "jwt_issuer": "i", "jwt_audience": "a"}, "jwks", "none.json"),
    ({"jwks": "http://a.example/", "jwt_issuer": "i", "jwt_audience": "a"}, "jwks", "https"),
    ({"jwks": "http://a.example:80/", "jwt_issuer": "i", "jwt_audience": "a"}, "jwks", "https"),
    ({"jwks": "ftp://a.example/", "jwt_issuer": "i", "jwt_audience": "a"}, "jwks", "https"),
    ({"jwks": "https://[x", "jwt_issuer": "i", "jwt_audience": "a"}, "jwks", "not a valid URL"),
    ({"jwks": "https://a.example:port/", "jwt_issuer": "i", "jwt_audience": "a"}, "jwks", "not a valid URL"),
    ({"nemesis_ping_seconds": "180"}, "nemesis_ping_seconds", "nemesis_idle_seconds"),
    ({"nemesis": "0.0.0.0:1987"}, "nemesis", "--nemesis-auth key"),
    ({"nemesis": "[::]:1987"}, "nemesis", "--nemesis-auth key"),
    ({"nemesis": "db.example:1987"}, "nemesis", "--nemesis-auth key"),
]


@pytest.mark.parametrize(("options", "name", "word"), CONTRADICTIONS)
def test_contradictions(options: dict[str, str | None], name: str, word: str) -> None:
    assert word in faults(options)[name]


def tls_faults(cert: Path, key: Path) -> dict[str, str]:
    return faults({"https": "127.0.0.1:8443", "tls_cert": str(cert), "tls_key": str(key)})


def test_tls_files_that_cannot_serve_are_named_with_their_setting(tmp_path: Path) -> None:
    cert, key = certificate() / "cert.pem", certificate() / "key.pem"
    load({"https": "127.0.0.1:8443", "tls_cert": str(cert), "tls_key": str(key)}, {})
    junk = tmp_path / "junk.pem"
    junk.write_text("-----BEGIN NOTHING-----\n")
    encrypted = tmp_path / "encrypted.pem"
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    stranger = certificate(2) / "key.pem"
    for one_cert, one_key, name, words in [
        (junk, key, "tls_cert", ("chain", str(junk))),
        (key, key, "tls_cert", ("chain", str(key))),
        (cert, junk, "tls_key", ("private key", str(junk))),
        (cert, cert, "tls_key", ("private key", str(cert))),
        (cert, encrypted, "tls_key", ("passphrase", str(encrypted), "openssl pkey")),
        (cert, stranger, "tls_key", ("belongs to another one", str(cert), str(stranger))),
        (cert, tmp_path, "tls_key", (str(tmp_path),)),
    ]:
        found = tls_faults(one_cert, one_key)
        assert list(found) == [name]
        assert all(word in found[name] for word in words), found


@pytest.mark.parametrize(
    ("rest", "word"),
    [
        ("u:topsecret@h:port/x", "as port"),
        ("u:topsecret@h:0/x", "as port"),
        ("u:topsecret@h:65536/x", "as port"),
        ("u:topsecret@h:1,i:two/x", "as port"),
        ("u:topsecret@[::1]:x/x", "as port"),
        ("u:topsecret@h/x?port=topsecret", "as port"),
        ("u:top/secret@h/x", "%2F"),
        ("u:top%secret@h/x", "%25"),
        ("u:top@secret@h/x", "%40"),
        ("u:topsecret@h/x?sslmode=foo", "verify-full"),
        ("u:topsecret@h/x?sslmode=", "verify-full"),
        ("u:topsecret@h/x?sslmode=verify-full&sslrootcert=/nope", "sslrootcert must be a readable file"),
        ("u:topsecret@h/x?sslmode=require&sslrootcert=kvasir.toml", "sslrootcert must be a file of certificates"),
        ("u:topsecret@h/x?sslcert=nope.pem", "there is none at nope.pem"),
        ("u:topsecret@h/x?sslkey=nope.pem", "there is none at nope.pem"),
        ("u:topsecret@h/x?sslmode=verify-ca&sslcrl=nope.pem", "there is none at nope.pem"),
    ],
)
def test_a_database_whose_url_can_never_work(rest: str, word: str) -> None:
    Path("kvasir.toml").touch()
    fault = faults({"engine": f"postgresql://{rest}"})["engine"]
    assert word in fault
    assert "secret" not in fault


@pytest.mark.parametrize(
    "rest",
    ["", "/x", "u:p:w@h:65535/x", "u@h:1,i/x", "[::1]:5/x", "h,[::1]/x", "%2Frun/x", "/x?host=/run,/tmp&port=5,6"],
)
def test_a_database_whose_url_may_work(rest: str) -> None:
    load({"engine": f"postgresql://{rest}"}, {})


@pytest.mark.parametrize("mode", SSL_MODES)
def test_tls_of_a_database(mode: str) -> None:
    load({"engine": f"postgresql://h/x?sslmode={mode}&sslrootcert={certificate()}/ca.pem"}, {})
    # What the mode has no use for is not looked at.
    load({"engine": "postgresql://h/x?sslmode=prefer&sslrootcert=/nope"}, {})
    load({"engine": "postgresql://h/x?sslmode=disable&sslcert=/nope"}, {})


@pytest.mark.parametrize(
    ("make", "good"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), True),
        (lambda: ec.generate_private_key(ec.SECP384R1()), True),
        (lambda: rsa.generate_private_key(65_537, 2_048), True),
        (ed25519.Ed25519PrivateKey.generate, True),
        (lambda: ec.generate_private_key(ec.SECP521R1()), False),
        (lambda: ec.generate_private_key(ec.SECP256K1()), False),
    ],
)
def test_keys_of_a_kind_that_the_listener_cannot_use(tmp_path: Path, make: Callable[[], Any], good: bool) -> None:
    """It would end the process."""
    private, name, now = make(), x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + timedelta(days=1))
    digest = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    both = builder.sign(private, digest).public_bytes(serialization.Encoding.PEM)
    both += private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "both.pem"
    file.write_bytes(both)
    if good:
        load({"https": "127.0.0.1:8443", "tls_cert": str(file), "tls_key": str(file)}, {})
    else:
        assert "P-256" in tls_faults(file, file)["tls_cert"]


@pytest.fixture
def unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that this process may not read, whoever runs it."""
    file, opened = tmp_path / "secret", Path.open
    file.touch()

    def refuse(self: Path, *given: Any, **named: Any) -> Any:
        if self.name == file.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return opened(self, *given, **named)

    monkeypatch.setattr(Path, "open", refuse)
    return file


def test_tls_files_that_may_not_be_read(unreadable: Path) -> None:
    found = tls_faults(certificate() / "cert.pem", unreadable)
    assert f"{unreadable} cannot be read: Permission denied" in found["tls_key"]
    assert "Permission denied" in tls_faults(unreadable, unreadable)["tls_cert"]


def test_a_key_set_that_may_not_be_read(unreadable: Path) -> None:
    found = faults({"jwks": str(unreadable), "jwt_issuer": "i", "jwt_audience": "a"})
    assert f"{unreadable} cannot be read: Permission denied" in found["jwks"]


def test_settings_that_go_together() -> None:
    for nemesis_auth in ("key", "none"):
        load({"nemesis": "0.0.0.0:1987", "nemesis_auth": nemesis_auth}, {})
    load({"nemesis": "[::1]:1987"}, {})
    load({"jwks": "http://127.0.0.1:80/jwks", "jwt_issuer": "i", "jwt_audience": "a"}, {})
    load({"http": "off"}, {})
    load({"nemesis_ping_seconds": "179", "nemesis_idle_seconds": "180"}, {})
    load({"engine": "postgresql://x", "limit_key_bytes": "2600", "limit_store_name_characters": "650"}, {})


@pytest.mark.parametrize(
    ("text", "name", "word"),
    [
        ("wrokers = 2", "wrokers", "not a setting"),
        ("wrokers = 2", "wrokers", "kvasir serve --help"),
        ("[limits]\nvalue = 2", "limits.value", "not a setting"),
        ("[server]\nhttp = 'x:1'", "server", "not a setting"),
        ("limit_value_bytes = 5", "limit_value_bytes", "not a setting"),
        ("workers = [1]", "workers", "must be"),
        ("workers = 1979-05-27", "workers", "must be"),
        ("workers =", "", "TOML"),
        ("workers = 1\nworkers = 2", "", "TOML"),
    ],
)
def test_a_file_with_faults(text: str, name: str, word: str) -> None:
    Path("kvasir.toml").write_text(text)
    named, fault = next(iter(faults({}).items()))
    assert named == (f"kvasir.toml: {name}" if name else "kvasir.toml")
    assert word in fault


def test_another_file(tmp_path: Path) -> None:
    other, third = tmp_path / "other.toml", tmp_path / "third.toml"
    other.write_text("workers = 2")
    third.write_text("workers = 3")
    Path("kvasir.toml").write_text("workers = 4")
    assert load({}, {}, other).workers == 2
    assert load({}, {"KVASIR_CONFIG": str(third)}).workers == 3
    assert load({}, {"KVASIR_CONFIG": str(third)}, other).workers == 2
    with pytest.raises(Invalid, match=r"none\.toml: cannot be read"):
        load({}, {}, Path("none.toml"))
    other.write_bytes(b"\xff")
    with pytest.raises(Invalid, match="TOML"):
        load({}, {}, other)


def test_an_empty_variable_is_not_set() -> None:
    assert load({}, {setting.variable: "" for setting in SETTINGS} | {"KVASIR_CONFIG": ""}) == Config()


def test_variables_without_a_row_are_left_alone() -> None:
    # What an orchestrator sets for a service named "kvasir".
    load({}, {"KVASIR_SERVICE_HOST": "10.0.0.1", "KVASIR_PORT": "tcp://10.0.0.1:8901"})


def test_where_the_database_is() -> None:
    assert Config().database == Path("kvasir-data/kvasir.db")
    assert load({"engine": "sqlite:/somewhere/else.db"}, {}).database == Path("/somewhere/else.db")
    assert load({"engine": "memory:"}, {}).database is None
    for scheme in ("postgres", "postgresql"):
        chosen = load({"engine": f"{scheme}://somebody@somewhere/else"}, {})
        assert (chosen.engine_name, chosen.database) == ("postgresql", None)


def test_addresses() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("localhost:65535") == ("localhost", 65_535)
