"""The text of a setting -> its value. Each parser raises ValueError with a message that completes "must be …"."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

from ulid import ULID

#: In place of an address: no listener.
OFF = "off"
#: Minimum length of a secret
SECRET_CHARACTERS = 32
#: Signatures made with a private key. With the others, anyone who can verify a token can also issue one.
ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA"}
)


#: In lower case and without a slash at the end, as browsers write it
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


def text(given: str) -> str:
    """Any text that is not empty."""
    if not given:
        raise ValueError("a text that is not empty")
    return given


def path(given: str) -> Path:
    """A path; `~` stands for the home directory."""
    return Path(text(given)).expanduser()


def flag(given: str) -> bool:
    """true or false."""
    if given.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise ValueError("true or false")
    return given.lower() in ("true", "1", "yes", "on")


def words(given: str) -> tuple[str, ...]:
    """Texts separated by commas."""
    return tuple(word.strip() for word in given.split(",") if word.strip())


def origins(given: str) -> tuple[str, ...]:
    """Origins of web pages as browsers send them, separated by commas: exact ones, never `null` or a pattern."""
    found = words(given)
    for origin in found:
        if _ORIGIN.fullmatch(origin) is None:
            raise ValueError("exact origins, as https://app.example.org or http://127.0.0.1:3000: no path, no pattern")
    return found


def algorithms(given: str) -> tuple[str, ...]:
    """Names of asymmetric signature algorithms."""
    names = words(given)
    if not names or not ASYMMETRIC.issuperset(names):
        raise ValueError(f"one or more of: {', '.join(sorted(ASYMMETRIC))}")
    return names


def one_of(*choices: str) -> Callable[[str], str]:
    """One of these words."""

    def parse(given: str) -> str:
        if given not in choices:
            raise ValueError(f"one of: {', '.join(choices)}")
        return given

    return parse


def whole(least: int = 1, most: int = 2**53) -> Callable[[str], int]:
    """A whole number in this range; underscores may group its digits, as in 1_000_000."""

    def parse(given: str) -> int:
        try:
            number = int(given)
        except ValueError:
            raise ValueError("a whole number") from None
        if not least <= number <= most:
            raise ValueError(f"{least:,} or more" if number < least else f"{most:,} or less")
        return number

    return parse


def seconds(given: str) -> float:
    """A number of seconds, more than 0 and at most a day."""
    try:
        number = float(given)
    except ValueError:
        raise ValueError("a number of seconds") from None
    if not 0 < number <= 86_400:
        raise ValueError("more than 0 and at most 86,400 seconds")
    return number


def address(given: str) -> str | None:
    """HOST:PORT, [IPV6]:PORT, or None for "off"."""
    if given == OFF:
        return None
    split_address(given)
    return given


def split_address(given: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [IPV6]:PORT; port 0 stands for any free one. Raises ValueError."""
    host, colon, port = given.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f'HOST:PORT, for example 127.0.0.1:8901, or "{OFF}"')
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def ulid(given: str) -> str:
    """A ULID, in upper case."""
    try:
        return str(ULID.from_str(given.upper()))
    except ValueError:
        raise ValueError("a ULID: 26 characters, for example 01JZX0W7M2Q4T8V6B3N5C9D1EF") from None


def engine_url(given: str) -> str:
    """sqlite: (a file in the data directory), sqlite:PATH, memory: or a libpq URL of a PostgreSQL database."""
    scheme, colon, rest = given.partition(":")
    good = {"sqlite": True, "memory": not rest, "postgresql": rest[:2] == "//", "postgres": rest[:2] == "//"}
    if not colon or not good.get(scheme):
        raise ValueError("sqlite:, sqlite:PATH, memory: or postgresql://USER@HOST/DATABASE")
    return given


def secret(given: str) -> str:
    """A text that is long enough not to be guessed."""
    if len(given) < SECRET_CHARACTERS:
        raise ValueError(f"at least {SECRET_CHARACTERS} characters; `openssl rand -hex 32` generates a good one")
    if not given.isascii() or not given.isprintable() or " " in given:
        raise ValueError("printable ASCII without spaces, since it is sent in a header")
    return given
