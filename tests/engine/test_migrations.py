"""Released migrations are history: databases were made by their text, so it never changes."""

from __future__ import annotations

import hashlib

import pytest

from kvasir.engines.postgres import schema as postgres
from kvasir.engines.sqlite import schema as sqlite
from kvasir.keys import COUNTER_BITS

#: SHA-256 of each migration, in order. A new migration adds a line; a line that is here stays as it is.
RELEASED = {
    "sqlite": (
        "5c132b672757e76432773b03c34f9197208ad82bf0e2aee9e35139f61d5c1a7c",
        "376fa19f5a88bc9f829371a945ae26c89b4e9eafea115fe8206a7b77caaf8835",
        "3a057165529f83b8892d881bae02537592054a430c8fb5409f6e06e3d0923b4c",
        "3493a12ad1d9b6d705983eb880f88342a1a33c60a6bce4888f472108ccb30794",
        "ddd427fd298205de5273f1c9331ef00d89adcf441c11c4e1d1be54338d079fc7",
    ),
    "postgres": (
        "b63cd1445447222c24f11ae316dbacb59e81c52508cf89c689e6718617e0de75",
        "936f4b13b4fc1585ba3bbecba93a02738767c1a0fd12474691a5d3a28ac41e12",
        "c7969f6ff6d636deefde00412dd00d661d6c0295b37d43e0b1ddbab45adbb6d2",
        "310c3b5b97963ab75121fd2582cf9826b048d99ceff730d6cf5d130eb2e5177e",
        "0465255c1c97e71953d30f3286a369db12aa5931c3a40a89868cc1e03ad16ebd",
    ),
}
MIGRATIONS = {"sqlite": sqlite.MIGRATIONS, "postgres": postgres.MIGRATIONS}


@pytest.mark.parametrize("engine", RELEASED)
def test_released_migrations_keep_their_text(engine: str) -> None:
    made = [hashlib.sha256(text.encode()).hexdigest() for text in MIGRATIONS[engine]]
    for number, (digest, released) in enumerate(zip(made, RELEASED[engine], strict=False), 1):
        assert digest == released, (
            f"migration {number} of {engine} was released and its text has changed: databases that have run it will"
            " not run it again, so they would differ from new ones. Restore it and append another migration."
        )
    assert len(made) >= len(RELEASED[engine]), f"a released migration of {engine} is gone: databases count them"
    assert len(made) == len(RELEASED[engine]), (
        f"pin the new migration of {engine} here: {made[len(RELEASED[engine]) :]}"
    )


@pytest.mark.parametrize("engine", MIGRATIONS)
def test_indexes_of_lagging_entries_shift_as_the_queries_do(engine: str) -> None:
    """A query whose WHERE differs from that of a partial index does not use it; SQLite would even refuse it."""
    assert f"created_at > sequence >> {COUNTER_BITS}" in "".join(MIGRATIONS[engine])
