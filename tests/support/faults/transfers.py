"""Clients that move amounts between accounts by transactions, and others that add up all accounts meanwhile."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.support.faults.pairs import ask
from tests.support.faults.stubborn import Stubborn
from tests.support.raw_http import Client
from tests.support.serving import Server

ACCOUNTS = 100
OPENING = 1_000
TOTAL = ACCOUNTS * OPENING


def account(number: int) -> list[str]:
    return ["account", f"{number:03}"]


def open_accounts(client: Client, store: str) -> None:
    """Put the same amount on every account."""
    sets = [{"type": "set", "key": account(n), "value": OPENING} for n in range(ACCOUNTS)]
    answer = ask(client, store, "atomic", {"mutations": sets})
    assert answer.status == 200, answer


class Mover(Stubborn):
    """Moves amounts: now by compare-and-set of both accounts, now by two increments, one of them with a condition."""

    def __init__(self, servers: Sequence[Server], store: str, count: int | None = None) -> None:
        super().__init__(servers, store)
        self._left = count
        self.moved = 0
        self.conflicts = 0
        self.unknown = 0

    def _finished(self) -> bool:
        return super()._finished() or (self._left is not None and self.moved + self.unknown >= self._left)

    def step(self, client: Client) -> None:
        source, target = random.sample(range(ACCOUNTS), 2)
        amount = random.randrange(1, 50)
        by_increments = random.random() < 0.5
        body = (
            self._increments(source, target, amount)
            if by_increments
            else self._compare_and_set(client, source, target, amount)
        )
        if body is not None:
            self._move(client, body)

    def _increments(self, source: int, target: int, amount: int) -> dict[str, object]:
        return {
            "checks": [{"key": account(source), "present": True}],
            "mutations": [
                {"type": "increment", "key": account(source), "by": -amount},
                {"type": "increment", "key": account(target), "by": amount},
            ],
        }

    def _compare_and_set(self, client: Client, source: int, target: int, amount: int) -> dict[str, object] | None:
        keys = [account(source), account(target)]
        read = self.attempt(lambda: ask(client, self.store, "get", {"keys": keys}), lambda: None)
        if read is None:
            return None
        entries = read.json()["entries"]
        values = [entries[0]["value"] - amount, entries[1]["value"] + amount]
        return {
            "checks": [{"key": entry["key"], "versionstamp": entry["versionstamp"]} for entry in entries],
            "mutations": [{"type": "set", "key": key, "value": value} for key, value in zip(keys, values, strict=True)],
        }

    def _move(self, client: Client, body: dict[str, object]) -> None:
        def unknown() -> None:
            self.unknown += 1

        answer = self.attempt(lambda: ask(client, self.store, "atomic", body), unknown)
        if answer is not None:
            if "failed" in answer.json():
                self.conflicts += 1
            else:
                self.moved += 1


class Auditor(Stubborn):
    """Adds up all accounts, each time in one snapshot."""

    def step(self, client: Client) -> None:
        body = {"keys": [account(n) for n in range(ACCOUNTS)]}
        answer = self.attempt(lambda: ask(client, self.store, "get", body), lambda: None)
        if answer is not None:
            total = sum(entry["value"] for entry in answer.json()["entries"])
            if total != TOTAL:
                self.unexpected.append(f"the accounts held {total}, not {TOTAL}")
