"""The JSON bodies of requests: what they may have, as types, and how they are read. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from kvasir import jsontext
from kvasir.beside.process import aside
from kvasir.errors import Invalid, TooLarge
from kvasir.limits import Limits

T = TypeVar("T")


class Body(Struct, frozen=True, forbid_unknown_fields=True):
    """Members with these names and no others."""


# -- spaces -----------------------------------------------------------------------------------------------

_Kind = Literal["store", "application"]
_Role = Literal["owner", "admin", "developer", "viewer"]


class NewSpace(Body, frozen=True):
    """A store or an application to make, unless there is one of this name."""

    name: str
    kind: _Kind = "store"


class NewName(Body, frozen=True):
    """What to call a store or an application from now on."""

    name: str


class NewKey(Body, frozen=True):
    """An access key to make. What is left out is not limited."""

    name: str
    role: _Role
    spaces: Annotated[list[str] | None, Meta(description="Ids of the only spaces that it opens")] = None
    prefix: Annotated[list[str] | None, Meta(description="The parts that every key it may use begins with")] = None
    ttl: Annotated[str | None, Meta(description="Life from now on: 90s, 15m, 24h or 30d")] = None
    expires_at: Annotated[str | None, Meta(description="End of its life: an instant of RFC 3339 in the future")] = None


class NewServiceAccount(Body, frozen=True):
    """A service account of the Voximplant API to make."""

    roles: Annotated[list[str], Meta(min_length=1, description="Voximplant's names of roles, such as Developer")]
    applications: Annotated[list[str] | None, Meta(description="Ids of the only applications that it opens")] = None
    description: str = ""


class ConsoleCode(Body, frozen=True):
    """What a one-time link to the console holds."""

    code: str


# -- entries ----------------------------------------------------------------------------------------------

Parts = Annotated[list[str], Meta(description="The parts of a key or a prefix")]
_Kept = Literal["expiry", "metadata"]
_Keep = Annotated[list[_Kept], Meta(description="What stays as it is if the key exists at the commit")]
_Ttl = Annotated[str | None, Meta(description="Life from the commit on: 1500ms, 90s, 15m, 24h or 30d")]
_Instant = Annotated[str | None, Meta(description="End of the life: an instant of RFC 3339 in the future")]
_Value = Annotated[Raw, Meta(description="Any JSON, kept byte for byte")]
_Text = Annotated[str | None, Meta(description="In place of value: a JSON string that holds the JSON of the value")]
_Metadata = Annotated[Raw, Meta(description="A JSON object, or null")]
_Integer = Annotated[int | str, Meta(description="An integer of 63 bits and a sign, as a number or as text")]


class Keys(Body, frozen=True):
    """The keys to read."""

    keys: list[Parts]


class Check(Body, frozen=True):
    """That a key has a versionstamp (null: does not exist), or that it exists at all."""

    key: Parts
    versionstamp: Annotated[str | UnsetType | None, Meta(extra_json_schema={"pattern": "^[0-9a-f]{20}$"})] = UNSET
    present: bool | UnsetType = UNSET


class Set(Body, frozen=True, tag_field="type", tag="set"):
    """Replace value, metadata and life of a key as one, but for what `keep` names."""

    key: Parts
    value: _Value = field(default_factory=Raw)
    text: _Text = None
    ttl: _Ttl = None
    expires_at: _Instant = None
    refresh: bool = False
    keep: _Keep = []
    metadata: _Metadata = field(default_factory=Raw)


class Delete(Body, frozen=True, tag_field="type", tag="delete"):
    """Remove a key."""

    key: Parts


class DeletePrefix(Body, frozen=True, tag_field="type", tag="delete_prefix"):
    """Remove a key and all below it; with `expect` only if there are exactly so many."""

    prefix: Parts
    expect: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    all: bool = False


class Touch(Body, frozen=True, tag_field="type", tag="touch"):
    """Change when a key expires, and nothing else. `expires_at: null`: it never does."""

    key: Parts
    ttl: _Ttl = None
    expires_at: str | UnsetType | None = UNSET
    extend: bool = False


class Increment(Body, frozen=True, tag_field="type", tag="increment"):
    """Add to the integer that a key has at the commit. Its life and metadata stay; `ttl` is for a new key only."""

    key: Parts
    by: _Integer = 1
    initial: _Integer = 0
    ttl: _Ttl = None
    expires_at: _Instant = None


Mutation = Set | Delete | DeletePrefix | Touch | Increment


class Atomic(Body, frozen=True):
    """One transaction: all mutations at one instant, if all checks hold."""

    checks: list[Check] = []
    mutations: list[Mutation] = []


# -- reading them -----------------------------------------------------------------------------------------

#: The last name in the path to a member, and what a member of this name may be, if it is one of a few words.
_name = re.compile(r"(\w+)(?:\[[0-9]+\])?\Z")
_CHOICES: dict[str, tuple[str, ...]] = {
    "kind": get_args(_Kind),
    "role": get_args(_Role),
    "keep": get_args(_Kept),
    "type": tuple(str(each.__struct_config__.tag) for each in get_args(Mutation)),
}

#: What is wrong with a member that is, or is not, there.
_member = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_MEMBERS = {"missing required": "is missing", "contains unknown": "is not known here"}

#: Types of JSON, as the parser calls them and as people do.
_type = re.compile(r"`([a-z |]+)`")
_TYPES = {"str": "a string", "int": "an integer", "bool": "true or false", "array": "an array", "object": "an object"}

#: So much of a client's text is repeated to it, and kept of each refused line of an import.
TOLD_CHARACTERS = 200


async def read(text: bytes, kind: type[T], limits: Limits) -> T:
    """The body as a value of this type. Raises `Invalid` for what is not strictly valid JSON, or has other members."""
    if jsontext.is_light(text):
        return parse(text, kind, limits)
    return await aside(parse, text, kind, limits)


def parse(text: bytes, kind: type[T], limits: Limits) -> T:
    """What `read` gives."""
    if not text:
        raise Invalid("the body is empty; it must be a JSON object")
    text = text.removeprefix(jsontext.BYTE_ORDER_MARK)
    jsontext.decode(text, limits.json_depth, limits.json_containers)
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None


def _refusal(said: str) -> Invalid:
    """What msgspec has said about a body."""
    what, _, path = said.rpartition(" - at `$") if said.endswith("`") else (said, "", "")
    if not what:  # it was about the body as a whole
        what, path = said, ""
    path = path.removesuffix("`")
    if member := _member.fullmatch(what):
        path, what = f"{path}.{member[2]}", _MEMBERS[member[1]]
    field = told(path.removeprefix("."))
    name = _name.search(field)
    choices = _CHOICES.get(name[1]) if name and what.startswith("Invalid ") else None
    what = f"must be one of: {', '.join(choices)}" if choices else told(_type.sub(_in_words, what))
    what = what.replace("Object ", "the object ").replace("Expected ", "expected ")
    return Invalid(f"{field or 'the body'}: {what}", fields=((field, what),) if field else ())


def _in_words(types: re.Match[str]) -> str:
    return " or ".join(_TYPES.get(each, each) for each in types[1].split(" | "))


def told(text: str) -> str:
    """As much of a text as is told to a client from which it has come."""
    return text if len(text) <= TOLD_CHARACTERS else f"{text[:TOLD_CHARACTERS]}…"


def check_prefix(packed: bytes, limits: Limits, field: str) -> None:
    """Raises `TooLarge`, which blames this field, for a packed prefix under which there can be no key."""
    try:
        if packed:
            limits.check_key(packed)
    except TooLarge as refusal:
        what = refusal.message.removeprefix("the key ")
        raise TooLarge(f"{field} {what}", fields=((field, what),)) from None


def blame(at: str, name: str, what: str) -> Invalid:
    """The refusal of one member; `at` is the path to the object that has it."""
    return Invalid(f"{at}{name} {what}", fields=((f"{at}{name}", what),))
