"""Transactions of several keys through two processes on one database, through the death of one: no amount is lost."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.support.raw_http import Cut, Wire, dump
from tests.support.serving import Server, serving

CLIENTS = 8
ACCOUNTS = 100
#: Of each client; `KVASIR_TRANSFERS=2000` is the long form.
TRANSFERS = int(os.environ.get("KVASIR_TRANSFERS", "60"))
BALANCE = 1_000

pytestmark = pytest.mark.usefixtures("each_engine")


class Bank:
    """The accounts, as one connection sees them. It comes back after a cut, perhaps to another server."""

    def __init__(self, servers: list[Server], store: str) -> None:
        self._servers = servers
        self._store = store
        self._wire: Wire | None = None

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        """The status and the JSON of an answer. Raises `Cut` if it is not known."""
        try:
            if self._wire is None:
                self._wire = Wire(random.choice(self._servers).port)
            answer = self._wire.ask(method, f"/v1/spaces/{self._store}/{path}", b"" if body is None else dump(body))
        except (Cut, OSError):
            if self._wire is not None:
                self._wire.close()
            self._wire = None
            raise Cut(begun=False) from None
        return answer.status, answer.json()

    def balances(self) -> dict[str, dict[str, object]]:
        """All accounts of one snapshot, by name."""
        status, page = self.ask("GET", f"entries?prefix=account&limit={ACCOUNTS}")
        assert status == 200, page
        entries = page["entries"]
        assert isinstance(entries, list)
        return {entry["key"][1]: entry for entry in entries}

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()


class Transferrer(threading.Thread):
    """Moves amounts between accounts: with checks and sets, or with increments."""

    def __init__(self, servers: list[Server], store: str, number: int) -> None:
        super().__init__(daemon=True)
        self._bank = Bank(servers, store)
        self._chance = random.Random(number)
        self.done = self.lost = self.unknown = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while self.done < TRANSFERS:
                try:
                    self._transfer()
                except Cut:
                    # Whether it happened or not, the sum is the same.
                    self.unknown += 1
                    self.done += 1
                    time.sleep(0.02)
        except BaseException as failure:
            self.failure = failure
        finally:
            self._bank.close()

    def _transfer(self) -> None:
        one, two = self._chance.sample(range(ACCOUNTS), 2)
        amount = self._chance.randrange(1, 100)
        keys = [["account", str(one)], ["account", str(two)]]
        if self._chance.random() < 0.5:
            mutations = [
                {"type": "increment", "key": key, "by": by} for key, by in zip(keys, (-amount, amount), strict=True)
            ]
            status, answer = self._bank.ask("POST", "atomic", {"mutations": mutations})
        else:
            status, answer = self._bank.ask("POST", "get", {"keys": keys})
            assert status == 200, answer
            entries = answer["entries"]
            assert isinstance(entries, list)
            checks = [{"key": each["key"], "versionstamp": each["versionstamp"]} for each in entries]
            sets = [
                {"type": "set", "key": each["key"], "value": each["value"] + by}
                for each, by in zip(entries, (-amount, amount), strict=True)
            ]
            status, answer = self._bank.ask("POST", "atomic", {"checks": checks, "mutations": sets})
        assert status in (200, 412, 503), answer
        self.done += status == 200
        self.lost += status == 412


class Auditor(threading.Thread):
    """Adds up all accounts, again and again."""

    def __init__(self, servers: list[Server], store: str) -> None:
        super().__init__(daemon=True)
        self._bank = Bank(servers, store)
        self.leave = threading.Event()
        self.looks = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.leave.wait(0.005):
                try:
                    balances = self._bank.balances()
                except Cut:
                    continue
                assert len(balances) == ACCOUNTS
                total = sum(int(json.dumps(entry["value"])) for entry in balances.values())
                assert total == ACCOUNTS * BALANCE, f"look {self.looks}"
                self.looks += 1
        except BaseException as failure:
            self.failure = failure
        finally:
            self._bank.close()


def test_the_sum_of_all_accounts_is_right_at_every_look(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with serving(tmp_path) as one, serving(tmp_path / "second", "--data-dir", str(one.data_dir)) as other:
        store, servers = one.store, [one, other]
        bank = Bank(servers, store)
        sets = [{"type": "set", "key": ["account", str(n)], "value": BALANCE} for n in range(ACCOUNTS)]
        assert bank.ask("POST", "atomic", {"mutations": sets})[0] == 200
        clients = [Transferrer(servers, store, number) for number in range(CLIENTS)]
        auditors = [Auditor(servers, store) for _ in range(2)]
        for each in (*clients, *auditors):
            each.start()
        while sum(each.done for each in clients) < CLIENTS * TRANSFERS // 2:
            assert all(each.failure is None for each in clients), [each.failure for each in clients]
            time.sleep(0.01)
        other.kill()
        servers.remove(other)  # whoever comes back from now on comes to the one that lives
        for each in clients:
            each.join(600)
            assert not each.is_alive()
            assert each.failure is None, each.failure
        for auditor in auditors:
            auditor.leave.set()
            auditor.join(60)
            assert auditor.failure is None, auditor.failure
            assert auditor.looks > 3
        bank.close()  # it may have been with the one that died
        bank = Bank(servers, store)
        assert sum(int(str(entry["value"])) for entry in bank.balances().values()) == ACCOUNTS * BALANCE
        bank.close()


def test_increments_beside_a_set_with_a_count_are_exact(tmp_path: Path) -> None:
    """As many as eight clients make, two of them with compare-and-set; the long form makes 1,000 of each."""
    each = max(TRANSFERS // 2, 40) if TRANSFERS < 1_000 else 1_000
    (tmp_path / "second").mkdir()
    with serving(tmp_path) as one, serving(tmp_path / "second", "--data-dir", str(one.data_dir)) as other:
        store, failures = one.store, []

        def count(number: int) -> None:
            bank = Bank([one, other], store)
            try:
                made = 0
                while made < each:
                    if number % 4:
                        body: object = {"mutations": [{"type": "increment", "key": ["n"]}]}
                    else:
                        entry = bank.ask("POST", "get", {"keys": [["n"]]})[1]["entries"][0]  # type: ignore[index]
                        check = {"key": ["n"], "versionstamp": entry["versionstamp"]}
                        change = {"type": "set", "key": ["n"], "value": entry["value"] + 1, "keep": ["expiry"]}
                        body = {"checks": [check], "mutations": [change]}
                    status, answer = bank.ask("POST", "atomic", body)
                    assert status in (200, 412), answer
                    made += status == 200
            except BaseException as failure:
                failures.append(failure)
            finally:
                bank.close()

        bank = Bank([one], store)
        assert bank.ask("PUT", "entries/n?ttl=1h", 0)[0] == 201
        threads = [threading.Thread(target=count, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(600)
        assert not failures, failures
        status, entry = bank.ask("GET", "entry?key=%5B%22n%22%5D&form=entry")
        assert (status, entry["value"]) == (200, CLIENTS * each)
        assert entry["expires_at"] is not None
        bank.close()
