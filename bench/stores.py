"""Many stores with entries, and loads that go round them."""

from __future__ import annotations

import asyncio
import statistics

from bench.harness import TURNS, Report, wrk
from kvasir.engine import Engine
from kvasir.keys import pack
from kvasir.model import Set, Space, Write
from tests.support.organisations import ORGANISATION
from tests.support.serving import Server

#: What a server needs to serve these stores
OPTIONS = ("--no-nemesis", "--organisation-id", ORGANISATION)
ENTRIES = 120
MANY = 1_000

BODY = """
wrk.method = "%s"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '%s'
"""

#: Round and round the stores, and the keys of one.
SPREAD = """
local stores = {%s}
local keys = %d
local n = 0
%s
function request()
  n = n + 1
  local store = stores[n %% #stores + 1]
  return wrk.format(nil, "/api/v2/store/" .. store .. "/kv/%s" .. (keys > 0 and n %% keys or ""))
end
"""


def spread(stores: list[str], path: str, head: str = "", *, keys: int = 0) -> str:
    """A script for wrk: one store after the other, at this path; with `keys`, a number below it follows the path."""
    return SPREAD % (",".join(f'"{store}"' for store in stores), keys, head, path)


PUT = BODY % ("PUT", '{"value":"' + "x" * 100 + '"}')


async def filled(engine: Engine, number: int) -> list[str]:
    """So many stores with `ENTRIES` entries each, keys "g/0" and so on; their ULIDs."""
    await engine.open()
    value = b'"' + b"x" * 100 + b'"'

    async def one(n: int) -> str:
        id = f"01HF{n:022d}"
        space = await engine.create_space(Space(id, 0, ORGANISATION, "store", f"s{n}", engine.clock()), [])
        await engine.write([Write(space.number, (Set(pack(["g", str(m)]), value),)) for m in range(ENTRIES)])
        return id

    stores: list[str] = []
    for start in range(0, number, 50):
        stores += await asyncio.gather(*(one(n) for n in range(start, min(number, start + 50))))
    await engine.close()
    return stores


def in_turn(report: Report, kvasir: Server, stores: list[str], bounds: dict[str, float]) -> None:
    """Requests to one store, with a hundred keys in turn, against requests to many stores in turn."""
    scripts = {
        "GET": (spread(stores[:1], "g/", keys=100), spread(stores, "g/5")),
        "durable PUT": (spread(stores[:1], "p/", PUT, keys=100), spread(stores, "p/1", PUT)),
    }
    url = f"{kvasir.url}/"
    for name, bound in bounds.items():
        rates = [
            [wrk(url, connections=128, headers=kvasir.headers, script=script).per_second for script in scripts[name]]
            for _ in range(TURNS)
        ]
        one, many = [statistics.median(column) for column in zip(*rates, strict=True)]
        report.figure(f"{name}, one store, 128 connections", one, "/s")
        report.figure(f"{name}, {len(stores):,} stores in turn, 128 connections", many, "/s")
        report.target(f"{name}: {len(stores):,} stores in turn / one", many / one, bound)
