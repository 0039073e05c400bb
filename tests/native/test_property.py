"""Whatever one asks of the API, it answers alike over a durable engine and the memory engine, which is the truth.

Hypothesis draws the requests. Versionstamps and cursors differ between the two, so each side's are called by the order
in which they first appear; all else is compared byte for byte. `KVASIR_EXAMPLES=50` makes fifty times as many examples.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from kvasir.dialects.http import Stream
from kvasir.dialects.native.app import NativeDialect
from kvasir.engine import Engine
from kvasir.engines.memory import MemoryEngine
from kvasir.engines.sqlite import SqliteEngine
from kvasir.limits import Limits
from kvasir.model import Principal
from kvasir.store.store import Store
from tests.support.clock import ManualClock
from tests.support.engines import make_durable
from tests.support.organisations import ORGANISATION
from tests.support.request import FakeRequest

EXAMPLES = 25 * int(os.environ.get("KVASIR_EXAMPLES", "1"))

OWNER = Principal(ORGANISATION, "owner", "owner")

KEY = st.lists(st.sampled_from(["", "a", "b", "ab", "a/b", "a\x00"]), min_size=1, max_size=3)
PREFIX = st.lists(st.sampled_from(["a", "b", "a\x00", ""]), max_size=2)
VALUE = st.sampled_from(["1", "9223372036854775807", ' {"b":1.50}\n', '"é"', "null", "-7"])
LIFE = st.sampled_from(["", "", "ttl=2ms", "ttl=4ms&refresh=true", "ttl=1h"])
KEEP = st.sampled_from(["", "", "keep=expiry", "keep=metadata", "keep=expiry,metadata"])
METADATA = st.sampled_from([None, None, "{}", '{"m":1}', '{"m": 1.0, "o": {"x": [1]}}'])
#: Which versionstamp a condition names: that of the last answer about the key, an old one, or something else.
CONDITION = st.sampled_from([None, None, "last", "any", "absent", "wrong"])

MUTATION = st.one_of(
    st.builds(
        lambda key, text, keep, metadata, ttl: (
            {"type": "set", "key": key, "text": text, "keep": keep, "metadata": metadata}
            | ({"ttl": ttl} if ttl else {})
        ),
        KEY,
        VALUE,
        st.sampled_from([[], ["expiry"], ["metadata", "expiry"]]),
        st.sampled_from([None, {"m": 1}]),
        st.sampled_from([None, "3ms", "1h"]),
    ),
    st.builds(lambda key: {"type": "delete", "key": key}, KEY),
    st.builds(
        lambda prefix, expect: {"type": "delete_prefix", "prefix": prefix, "all": not prefix, "expect": expect},
        PREFIX,
        st.none() | st.integers(0, 3),
    ),
    st.builds(lambda key, ttl: {"type": "touch", "key": key, "ttl": ttl}, KEY, st.sampled_from(["1ms", "1h"])),
    st.builds(lambda key: {"type": "touch", "key": key, "expires_at": None}, KEY),
    st.builds(
        lambda key, by, initial: {"type": "increment", "key": key, "by": by, "initial": initial},
        KEY,
        st.sampled_from([1, -3, 2**63 - 1]),
        st.sampled_from([0, 5]),
    ),
)
CHECK = st.one_of(
    st.builds(lambda key: {"key": key, "versionstamp": None}, KEY),
    st.builds(lambda key, present: {"key": key, "present": present}, KEY, st.booleans()),
)


class KnownCaller:
    """Stands in for `kvasir.access.authenticator.Authenticator`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def authenticate(self, authorization: str | None, cookie: str | None) -> Principal:
        await self._store.refresh()
        return OWNER


class Side:
    """The API over one engine."""

    def __init__(self, engine: Engine, clock: ManualClock) -> None:
        self.engine = engine
        store = Store(engine, Limits(), clock)
        self.dialect = NativeDialect(store, engine, KnownCaller(store), engine_name="x", durability="x")  # type: ignore[arg-type]
        self.id = ""
        #: Versionstamps by the order in which they appeared
        self.names: dict[str, str] = {}
        #: The last versionstamp that was told of each key
        self.last: dict[str, str] = {}

    async def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
        """(status, body, headers that matter) of an answer."""
        target = f"/v1/spaces{path}".replace("{id}", self.id)
        response = await self.dialect(FakeRequest(method, target, body, headers or {}))
        text = response.body
        if isinstance(response, Stream):
            text = b"".join([piece async for piece in response.chunks])
        named = {name.lower(): value for name, value in response.headers}
        kept = {name: value for name, value in named.items() if name in ("etag", "kvasir-count", "kvasir-expires-at")}
        return response.status, text.decode(), kept

    def plain(self, answer: Any) -> Any:
        """The answer with names for what differs between engines."""

        def name(found: re.Match[str]) -> str:
            return self.names.setdefault(found[0], f"stamp {len(self.names)}")

        status, text, headers = answer
        text = re.sub(r'"next":"[^"]*"', '"next":"…"', text)
        text = re.sub(r"[0-9a-f]{20}", name, text)
        return status, text, {key: re.sub(r"[0-9a-f]{20}", name, value) for key, value in headers.items()}


class BothApis(RuleBasedStateMachine):
    """Every rule asks both sides the same."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        tried = make_durable(self.clock) if make_durable else SqliteEngine(self.folder / "k.db", clock=self.clock)
        self.sides = [Side(MemoryEngine(self.clock), self.clock), Side(tried, self.clock)]
        for side in self.sides:
            self.loop.run_until_complete(side.engine.open())
            made = self.loop.run_until_complete(side.ask("POST", "", b'{"name":"store"}'))
            side.id = json.loads(made[1])["id"]

    def teardown(self) -> None:
        for side in self.sides:
            assert self.loop.run_until_complete(side.engine.check()) == []
            self.loop.run_until_complete(side.engine.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
        """Ask both; the answer of the truth."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        answers = []
        for side in self.sides:
            mine = {name: text.replace("{last}", side.last.get(path, "0" * 20)) for name, text in named.items()}
            answers.append(self.loop.run_until_complete(side.ask(method, path, body, mine)))
            if (tag := answers[-1][2].get("etag")) is not None:
                side.last[path] = tag.strip('"')[:20]
        truth, tried = (side.plain(answer) for side, answer in zip(self.sides, answers, strict=True))
        assert truth == tried, (method, path, body)
        return answers[0]

    @staticmethod
    def entry_path(key: list[str]) -> str:
        return "/{id}/entry?key=" + quote(json.dumps(key))

    @rule(key=KEY, value=VALUE, life=LIFE, keep=KEEP, metadata=METADATA, condition=CONDITION)
    def put(
        self, key: list[str], value: str, life: str, keep: str, metadata: str | None, condition: str | None
    ) -> None:
        headers = self.conditions(condition)
        if metadata is not None:
            headers["kvasir_metadata"] = metadata
        options = "&".join(["", *[each for each in (life, keep) if each]])
        # Conditions name what the plain path of the key was told last.
        for side in self.sides:
            side.last[self.entry_path(key) + options] = side.last.get(self.entry_path(key), "0" * 20)
        self.ask("PUT", self.entry_path(key) + options, value.encode(), **headers)

    def conditions(self, condition: str | None) -> dict[str, str]:
        return {
            None: {},
            "last": {"if_match": '"{last}"'},
            "any": {"if_match": "*"},
            "absent": {"if_none_match": "*"},
            "wrong": {"if_match": '"x", "y"'},
        }[condition]

    @rule(key=KEY, whole=st.booleans(), extend=st.booleans())
    def get(self, key: list[str], whole: bool, extend: bool) -> None:
        self.ask("GET", self.entry_path(key))
        self.ask("GET", self.entry_path(key) + f"&extend={str(extend).lower()}" + ("&form=entry" if whole else ""))

    @rule(key=KEY, condition=CONDITION.filter(lambda name: name != "absent"))
    def delete(self, key: list[str], condition: str | None) -> None:
        self.ask("DELETE", self.entry_path(key), b"", **self.conditions(condition))

    @rule(mutations=st.lists(MUTATION, max_size=4), checks=st.lists(CHECK, max_size=2))
    def atomic(self, mutations: list[Any], checks: list[Any]) -> None:
        self.ask("POST", "/{id}/atomic", json.dumps({"checks": checks, "mutations": mutations}).encode())

    @rule(keys=st.lists(KEY, max_size=4))
    def get_many(self, keys: list[list[str]]) -> None:
        self.ask("POST", "/{id}/get", json.dumps({"keys": keys}).encode())

    @rule(
        prefix=PREFIX,
        order=st.sampled_from(["key", "newest", "oldest"]),
        limit=st.sampled_from([1, 2, 1000]),
        more=st.sampled_from(["", "&values=false", '&metadata={"m":1}']),
    )
    def walk(self, prefix: list[str], order: str, limit: int, more: str) -> None:
        ranged = f"prefix={quote(json.dumps(prefix))}" if prefix else "all=true"
        self.pages(f"/{{id}}/entries?{ranged}&order={order}&limit={limit}{more}", "cursor")
        self.pages(f"/{{id}}/children?{ranged}&limit={limit}", "after")
        self.ask("GET", f"/{{id}}/count?{ranged}")
        self.ask("GET", f"/{{id}}/export?{ranged}")

    def pages(self, path: str, parameter: str) -> None:
        nexts = ["", ""]
        for _ in range(30):
            answers = []
            for number, side in enumerate(self.sides):
                following = f"&{parameter}={nexts[number]}" if nexts[number] else ""
                answers.append(self.loop.run_until_complete(side.ask("GET", path + following)))
            assert self.sides[0].plain(answers[0]) == self.sides[1].plain(answers[1]), path
            told = [json.loads(answer[1])["next"] for answer in answers]
            if told[0] is None:
                return
            nexts = told
        raise AssertionError("the pages have no end")

    @rule(lines=st.lists(st.tuples(KEY, VALUE), max_size=5), mode=st.sampled_from(["replace", "keep", "fail"]))
    def load(self, lines: list[tuple[list[str], str]], mode: str) -> None:
        text = "\n".join([json.dumps({"key": key, "text": value}) for key, value in lines])
        for dry_run in ("true", "false"):
            self.ask("POST", f"/{{id}}/import?mode={mode}&dry_run={dry_run}", text.encode())

    @rule(prefix=PREFIX, expect=st.none() | st.integers(0, 3))
    def delete_prefix(self, prefix: list[str], expect: int | None) -> None:
        ranged = f"prefix={quote(json.dumps(prefix))}" if prefix else "all=true"
        self.ask("DELETE", f"/{{id}}/entries?{ranged}" + ("" if expect is None else f"&expect={expect}"))

    @rule(milliseconds=st.integers(1, 4))
    def wait(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds)


TestBothApis = BothApis.TestCase
TestBothApis.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
