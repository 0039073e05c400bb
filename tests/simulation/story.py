"""What happens in one run: a random story of writes, reads and faults, always the same for the same seed."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from random import Random
from typing import Any

import apsw

from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.keys import pack
from kvasir.model import Check, Delete, DeleteRange, Entry, Mutation, Present, Query, Set, Space, Write
from tests.simulation.disk import VirtualFileSystem
from tests.simulation.machine import DATABASE, Killed, Machine, PowerFailed, Process, SickDisk, stand_ins
from tests.simulation.model import Alter, Create, End, Group, Job, Model, State, Violation, WriteAll, texts_of
from tests.support.lab import alias, ulid
from tests.support.organisations import ORGANISATION

KEYS = [pack([name]) for name in "abcde"]
ALIASES = [alias(name) for name in "pqr"]
PROCESSES = 3

#: What may strike at a step, and how often each is chosen.
FAULTS = {"kill": 5, "power": 3, "sick": 3, "unsynced": 2, "full": 2, "write back": 1}
#: At which steps, where not at all.
STRIKES_AT = {"sick": ("write", "sync", "truncate"), "unsynced": ("sync",), "full": ("write",)}


class UnderWay:
    """Jobs of one process, and where their outcomes will be."""

    def __init__(self, group: Group, futures: list[Any]) -> None:
        self.group = group
        self.futures = futures


class Story:
    """One seed. `run` raises `Violation` if a promise was broken."""

    def __init__(self, seed: int, folder: Path, file_system: VirtualFileSystem, template: bytes) -> None:
        self.chance = Random(seed)
        # Now and then the database does not exist yet.
        files = {} if self.chance.random() < 0.05 else {DATABASE: template}
        self.machine = Machine(folder, self.chance, files, file_system)
        self.machine.fault = self._at_step
        self.model = Model()
        self._under_way: dict[Process, UnderWay] = {}
        #: Those whose writer has its turn at the moment, the outer before the inner
        self._active: list[Process] = []
        self._fault: str | None = None
        self._steps_to_fault = 0
        self._sick_steps = 0
        self._power_failed = False
        self._texts = 0
        self._spaces = 0
        self._job_of: dict[bytes, Job] = {}
        self._texts_of_key: dict[tuple[str, bytes], list[bytes]] = {}
        self._expiries: set[int] = set()
        self._facts: dict[Process, tuple[int, dict[Any, Any], dict[bytes, bytes]]] = {}

    def run(self) -> None:
        with stand_ins(self.chance.choice((4, 12, 40))):
            try:
                for _ in range(self.chance.randint(8, 24)):
                    self._scene()
                self._end()
            finally:
                self.machine.fault = lambda process, what: None
                for process in list(self.machine.processes):
                    self.machine.kill(process)

    # -- scenes -------------------------------------------------------------------------------------------

    def _scene(self) -> None:
        self._arm()
        if not self.machine.processes:
            self._start()
            return
        process = self.chance.choice(self.machine.processes)
        dice = self.chance.random()
        if dice < 0.66:
            self._guarded(process, lambda: self._write(process))
        elif dice < 0.76:
            self._observe(process)
        elif dice < 0.83 and len(self.machine.processes) < PROCESSES:
            self._start()
        elif dice < 0.86:
            self._guarded(process, lambda: self._stop(process))
        elif dice < 0.92:
            for one in list(self.machine.processes) if dice > 0.89 else [process]:
                self._note(f"kill {one.number}")
                self._kill(one)
        elif dice < 0.94:
            self._lose_power()
        elif dice < 0.95:
            self._note("somebody watches, so commits are logged from now on")
            process.writer.seqlocks.watch(60.0)
        else:
            self._move_clock()

    def _arm(self) -> None:
        """Let chance decide whether something strikes, what, and at which step from now."""
        self._sick_steps = 0
        self._fault = None
        if self.chance.random() < 0.4:
            (self._fault,) = self.chance.choices(list(FAULTS), list(FAULTS.values()))
            self._steps_to_fault = self.chance.choice((self.chance.randint(1, 6), self.chance.randint(1, 30)))

    def _guarded(self, process: Process, work: Any) -> None:
        """Do something that the process may not survive."""
        try:
            work()
        except PowerFailed:
            if self._active:
                raise
        except Killed:
            pass
        if self._power_failed and not self._active:
            self._lose_power()
        elif process.dead:
            self._kill(process)

    def _start(self) -> None:
        self._note("start a process")
        try:
            process = self.machine.start_process()
        except PowerFailed:
            self._lose_power()
        except Killed:
            pass
        except (KvasirError, apsw.Error) as error:
            self._note(f"  it does not start: {error}")
        else:
            if self._power_failed:
                self._lose_power()
            elif process.dead:
                self._kill(process)
            elif not process.engine.writer.broken:
                self.model.settle()

    def _stop(self, process: Process) -> None:
        self._note(f"stop {process.number}")
        try:
            self.machine.stop(process)
        except apsw.Error:
            self._kill(
                process
            )  # SQLite itself makes nothing of faults while it closes, but its binding for Python does

    def _kill(self, process: Process) -> None:
        self._leave(process)
        self.machine.kill(process)

    def _lose_power(self) -> None:
        self._note("power failure")
        self._power_failed = False
        for process in list(self.machine.processes):
            self._leave(process)
        self._under_way.clear()
        self.machine.lose_power()

    def _leave(self, process: Process) -> None:
        """It has died; nobody will be told of what it had under way, unless it told them before."""
        self._collect(process)
        if under_way := self._under_way.pop(process, None):
            self.model.set_adrift(under_way.group)
        self._facts.pop(process, None)

    def _move_clock(self) -> None:
        self.machine.uptime += self.chance.random() * 2
        target = self.machine.now + self.chance.choice((1, 50, 700, 5_000, -1, -300))
        # Whether what has expired comes back with a clock that is set back depends on the sweep.
        if not any(target < expiry <= self.machine.now for expiry in self._expiries):
            self.machine.now = target
            self._note(f"the clock says {self.machine.now}")

    # -- writes -------------------------------------------------------------------------------------------

    def _write(self, process: Process) -> None:
        """A turn of a process: it commits what its clients have brought together, and does its housekeeping."""
        self.machine.uptime += self.chance.choice((0.0, 0.0, 0.3, 1.5))
        jobs = self._jobs()
        self._note(f"{process.number} commits {len(jobs)} jobs")
        for job in jobs:
            self._note(job)
        if jobs:
            group = self.model.begin(jobs, self.machine.now)
            with self.machine.running(process):
                self._under_way[process] = UnderWay(group, [self._submit(process, job) for job in jobs])
        self._active.append(process)
        try:
            was_broken = process.engine.writer.broken
            process.take_turn()
        finally:
            self._active.pop()
        if not process.dead:
            if was_broken and not process.engine.writer.broken:
                self.model.settle()
            self._collect(process)
            if process in self._under_way:
                raise Violation("nobody was told of the outcome of a group")

    def _jobs(self) -> list[Job]:
        if len(self.model.numbers) > 1 and self.chance.random() < 0.15:
            # Plain Sets, which the engine applies together.
            return [self._plain_set() for _ in range(self.chance.randint(4, 12))]
        return [self._job() for _ in range(self.chance.choice((0, 1, 1, 2, 3, 6)))]

    def _submit(self, process: Process, job: Job) -> Any:
        engine = process.engine
        if isinstance(job, WriteAll):
            return engine.write(job.writes)
        if isinstance(job, Create):
            return process.writer.run(lambda transaction: transaction.create_space(job.space, [job.alias]))
        if isinstance(job, Alter):
            return process.writer.run(lambda transaction: transaction.alter_space(job.id, job.name, [job.alias], []))
        return process.writer.run(lambda transaction: transaction.end_space(job.id))

    def _collect(self, process: Process) -> None:
        """Tell the model what the clients of a process were told."""
        under_way = self._under_way.get(process)
        if under_way is None or not all(future.done() for future in under_way.futures):
            return
        del self._under_way[process]
        group, futures = under_way.group, under_way.futures
        errors = {type(future.exception()) for future in futures}
        if errors <= {type(None)}:
            self._note(f"  {process.number} acknowledges")
            self.model.acknowledge(group, [future.result() for future in futures])
        elif errors == {Unavailable}:
            self._note(f"  {process.number} refuses: {futures[0].exception()}")
            self.model.refuse(group)
        elif errors == {UnknownOutcome}:
            self._note(f"  {process.number} does not know")
            self.model.set_adrift(group)
        else:
            raise Violation(f"a group failed with {errors}")

    def _job(self) -> Job:
        dice = self.chance.random()
        if dice < 0.75 or (dice < 0.88 and len(self.model.numbers) == 1):
            return self._write_all()
        name = f"n{self.chance.randrange(1_000)}"
        if dice < 0.82 and len(self.model.numbers) > 1:
            return Alter(self._some_space(), name, self.chance.choice(ALIASES))
        if dice < 0.88:
            return End(self._some_space())
        self._spaces += 1
        id = ulid(self._spaces)
        expires_at = None
        space = Space(id, 0, ORGANISATION, "store", name, self.machine.now, expires_at)
        return Create(space, self.chance.choice(ALIASES))

    def _some_space(self) -> str:
        return self.chance.choice([id for id in self.model.numbers if id])

    def _plain_set(self) -> WriteAll:
        id = self._some_space()
        key = self.chance.choice(KEYS)
        write = Write(self.model.numbers[id], (Set(key, self._text(id, key)),))
        return self._noted(WriteAll(id, (write,)))

    def _noted(self, job: WriteAll) -> WriteAll:
        self._job_of.update((text, job) for write in job.writes for text in texts_of(write))
        return job

    def _write_all(self) -> WriteAll:
        id = self.chance.choice(list(self.model.numbers))
        number = self.model.numbers[id]
        writes = []
        for _ in range(self.chance.choice((1, 1, 1, 3))):
            mutations = tuple([self._mutation(id) for _ in range(self.chance.choice((1, 1, 1, 2, 3)))])
            writes.append(Write(number, mutations, self._conditions(id)))
        return self._noted(WriteAll(id, tuple(writes)))

    def _mutation(self, id: str) -> Mutation:
        dice = self.chance.random()
        if dice < 0.03:
            return DeleteRange(None)
        key = self.chance.choice(KEYS)
        if dice < 0.15:
            return Delete(key)
        text = self._text(id, key)
        if self.chance.random() < 0.85:
            return Set(key, text)
        expires_at = self.machine.now + self.chance.choice((20, 600, 4_000))
        self._expiries.add(expires_at)
        return Set(key, text, expires_at=expires_at)

    def _text(self, id: str, key: bytes) -> bytes:
        """A value that nobody has set before."""
        self._texts += 1
        # Some take several pages, so that their commit can be torn.
        text = b'"%d %b"' % (self._texts, b"x" * self.chance.choice((0, 0, 0, 0, 100, 5_000, 9_000)))
        self._texts_of_key.setdefault((id, key), []).append(text)
        return text

    def _conditions(self, id: str) -> tuple[Check | Present, ...]:
        if self.chance.random() < 0.7:
            return ()
        key = self.chance.choice(KEYS)
        if self.chance.random() < 0.2:
            return (Present(key),)
        known = [self.model.stamps[text] for text in self._texts_of_key.get((id, key), []) if text in self.model.stamps]
        return (Check(key, self.chance.choice([None, *known[-2:]])),)

    # -- reads --------------------------------------------------------------------------------------------

    def _observe(self, process: Process) -> None:
        """Read everything through a process, as its clients would, and ask whether it can be true."""
        with self.machine.running(process):
            epoch = process.engine.epoch_nowait()
            self._note(f"read all through {process.number}, epoch {epoch}")
            self.model.read_epoch(epoch)
            spaces: dict[str, Space] = {}
            names = {}
            for one in ALIASES:
                space = process.call(process.engine.resolve(one))
                names[one] = None if space is None else (space.id, space.name)
                if space is not None:
                    self.model.know_number(space)
                    spaces[space.id] = space
            entries = {id: self._entries(process, self.model.numbers[id]) for id in ["", *spaces]}
        now = self.machine.now
        texts = {id: {key: entry.value for key, entry in found.items()} for id, found in entries.items()}
        self.model.read(
            lambda state: _shows(state, names, texts, now), lambda: f"nobody can have read {_short((names, texts))}"
        )
        found = {one: name for one, name in names.items() if name is not None}
        self._compare_with_cache(process, epoch, found, texts[""])

    def _entries(self, process: Process, number: int) -> dict[bytes, Entry]:
        page = process.call(process.engine.page(number, Query(order="oldest")))
        created = [entry.created_at for entry in page.entries]
        if created != sorted(created):
            raise Violation(f"creation times contradict the order of creation: {created}")
        found = {entry.key: entry for entry in page.entries}
        for entry in page.entries:
            self.model.know_stamp(entry.value, entry.versionstamp, self._job_of[entry.value])
        if process.engine.get_nowait(number, KEYS) != [found.get(key) for key in KEYS]:
            raise Violation("a process remembers what is no longer true")
        return found

    def _compare_with_cache(
        self, process: Process, epoch: int, names: dict[Any, Any], records: dict[bytes, bytes]
    ) -> None:
        """What a process has learned of spaces and records stays true while the epoch stays the same."""
        before, known_names, known_records = self._facts.get(process, (epoch, {}, records))
        if before == epoch:
            lost = {one: name for one, name in known_names.items() if names.get(one) != name}
            if lost or (known_records != records and not self._expiries):
                raise Violation(f"under the epoch {epoch}, {lost}, {known_records} became {names}, {records}")
        self._facts[process] = epoch, names, records

    def _look(self, process: Process) -> None:
        """Read one key through a process, perhaps from what it remembers."""
        id = self.chance.choice(list(self.model.numbers))
        key = self.chance.choice(KEYS)
        with self.machine.running(process):
            if id and process.call(process.engine.get_space(id)) is None:
                return
            entry = process.engine._get_one(self.model.numbers[id], key)
        if entry is not None:
            self.model.know_stamp(entry.value, entry.versionstamp, self._job_of[entry.value])
        self._note(f"      {process.number} reads {key!r} of {id!r}: {entry and entry.value[:12]!r}")
        text, now = entry and entry.value, self.machine.now

        def shows(state: State) -> bool:
            value = state.living(id, key, now)
            return (value and value.text) == text and (not id or id in state.spaces)

        self.model.read(shows, lambda: f"nobody can have read {text!r} at {key!r} of {id!r}")

    # -- faults -------------------------------------------------------------------------------------------

    def _at_step(self, process: Process, what: str) -> None:
        if self._power_failed:
            return
        if self._active and self._active[-1] is process and self.chance.random() < 0.06:
            self._meanwhile(process)
        if self._sick_steps and what.startswith(STRIKES_AT["sick"]):
            self._sick_steps -= 1
            raise SickDisk(self.chance)
        if self._fault is None:
            return
        self._steps_to_fault -= 1
        if self._steps_to_fault <= 0:
            self._strike(process, what)

    def _strike(self, process: Process, what: str) -> None:
        """The fault that is due, if this step is of its kind; else it waits for one that is."""
        fault = self._fault
        assert fault is not None
        if not what.startswith(STRIKES_AT.get(fault, "")):
            return
        self._note(f"    {fault}!")
        self._fault = None
        if fault == "kill":
            process.dead = True
            raise Killed(self.chance)
        if fault == "power":
            self._power_failed = True
            for one in self.machine.processes:
                one.dead = True
            raise PowerFailed(self.chance)
        if fault in ("sick", "unsynced"):
            self._sick_steps = self.chance.choice((0, 0, 3, 20))
            raise SickDisk(self.chance)
        if fault == "full":
            raise apsw.FullError("simulated")
        self.machine.disk.write_back(self.chance)

    def _meanwhile(self, process: Process) -> None:
        """Something else happens while the writer of a process is in the middle of its turn."""
        other = self.chance.choice([one for one in self.machine.processes if one.ready])
        dice = self.chance.random()
        if dice < 0.4:
            process.run_loop()
            self._collect(process)
        elif dice < 0.9:
            # A process that closes the database last has it alone for a moment; others wait for that.
            with contextlib.suppress(apsw.BusyError):
                self._look(other) if dice < 0.8 else self._observe(other)
        elif self.machine.lock_holder is None and other not in self._active and len(self._active) < 2:
            self._guarded(other, lambda: self._write(other))

    # -- the end ------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Whatever has happened: a server starts, everything is as it must be, and writes are accepted."""
        self._fault = None
        self._sick_steps = 0
        if self.chance.random() < 0.5:
            self._lose_power()
        for process in list(self.machine.processes):
            self._kill(process)
        for _ in range(2):
            self._note("the end: a server starts")
            try:
                process = self.machine.start_process()
            except (KvasirError, apsw.Error) as error:
                raise Violation(f"the database cannot be opened: {error}") from None
            if process.engine.writer.broken:
                raise Violation("the writer does not come up though the disk is well")
            self.model.settle()
            self._observe(process)
            self._write(process)
            self._observe(process)
            if faults := process.call(process.engine.check()):
                raise Violation(f"`kvasir check` says: {faults}")
            self._stop(process)
        if not all(not world.pending for world in self.model.worlds):
            raise Violation("something is undecided in the end")

    def _note(self, what: object) -> None:
        self.machine.trace.append(what)

    @property
    def trace(self) -> str:
        """Everything that was done, for a human reader."""
        return "\n".join(one if isinstance(one, str) else f"  {_short(one)}" for one in self.machine.trace)


def _short(thing: object) -> str:
    """For a human reader."""
    text = re.sub(r"x{20,}", "x…", repr(thing))
    for name in ("metadata", "ttl", "expires_at", "clear_every"):
        text = text.replace(f", {name}=None", "")
    return (
        text.replace(", refresh=False", "").replace(f"'store', '{ORGANISATION}', ", "").replace("01HF" + "0" * 21, "")
    )


def _shows(state: State, names: dict[Any, Any], texts: dict[str, dict[bytes, bytes]], now: int) -> bool:
    """Whether this is what a reader of everything finds in this state."""
    for one, found in names.items():
        space = state.resolve(one)
        if found != (None if space is None else (space.id, space.name)):
            return False
    for id, found in texts.items():
        living = {key: value for of, key in state.entries if of == id and (value := state.living(id, key, now))}
        if {key: value.text for key, value in living.items()} != found:
            return False
    return True
