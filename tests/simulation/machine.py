"""One computer with a virtual disk and clock, and processes that run the real SQLite engine on it, one at a time.

A process has no threads: its event loop and its writer's thread take turns when the simulation says so, and at every
step of the writer (a write to the disk, a sync, a seqlock, the commit itself) other things may happen: its own loop
goes on, another process reads or writes, the step fails, the process is killed, the power fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from queue import Empty
from random import Random
from typing import Any, cast
from unittest import mock

import apsw

from kvasir.engines import sqlite
from kvasir.engines.sqlite import SqliteEngine, checkpoints, connection, sweeping, writer
from kvasir.engines.sqlite.seqlocks import Seqlocks, WritersLock
from tests.simulation.disk import PAGE, Disk, Inode, VirtualFileSystem
from tests.support.clock import START

DATABASE = "kvasir.db"


class Killed(BaseException):
    """The process ends here and now. `part` of a write under way still happens."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self.part = chance.choice((0.0, chance.random(), 1.0))
        self._synced = chance.random() < 0.5

    def sync_badly(self, inode: Inode) -> None:
        if self._synced:
            inode.sync()


class PowerFailed(Killed):
    """So do all of them, and the disk forgets what was not synced."""


class Confused(BaseException):
    """The simulation itself is at fault."""


class SickDisk(apsw.IOError):
    """A step of the disk that fails half-way."""

    def __init__(self, chance: Random) -> None:
        super().__init__("simulated")
        self.part = chance.random()
        self._chance = chance
        self._gives_up = chance.random() < 0.5

    def sync_badly(self, inode: Inode) -> None:
        inode.sync_badly(self._chance, give_up=self._gives_up)


class Loop:
    """As much of an event loop as the engine needs; what it is given to do waits for `run`."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    def call_soon(self, callback: Callable[..., object], *arguments: object, context: object = None) -> None:
        self._ready.append((callback, arguments))

    call_soon_threadsafe = call_soon

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def run_in_executor(self, _: object, work: Callable[..., object], *arguments: object) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        return False

    def run(self) -> None:
        while self._ready:
            callback, arguments = self._ready.popleft()
            callback(*arguments)


class _Handed(deque[Any]):
    """A queue that nobody waits at."""

    put = deque.append

    def get(self, timeout: float | None = None) -> Any:
        if not self:
            raise Empty
        return self.popleft()

    get_nowait = get


class _Thread:
    """The writer's thread. To wait for its end is to let it run to its end."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run

    def start(self) -> None:
        pass

    def join(self) -> None:
        self._run()


class Process:
    """One server: the real engine, alive until it is killed."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.machine = machine
        self.number = number
        self.dead = False
        #: Whether it has opened the database
        self.ready = False
        self.loop = Loop()
        with machine.running(self):
            # A commit is two steps of its own.
            self.engine = SqliteEngine(machine.folder / DATABASE, clock=lambda: machine.now, commit=self._commit)
        self.writer: Any = cast("Any", self.engine._writes)
        self.writer._inbox._handed = _Handed()
        self.writer._thread = _Thread(self.writer._run)

    def step(self, what: str) -> None:
        """Its writer is about to do this. Raises what the machine makes of it."""
        if not self.dead:
            self.machine.step(self, what)

    def _commit(self, connection: apsw.Connection) -> None:
        self.step("commit")
        writer.commit(connection)
        self.step("committed")

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine of the engine returns. Only for those that never wait for the writer."""
        with self.machine.running(self):
            while True:
                try:
                    coroutine.send(None)
                except StopIteration as stop:
                    return stop.value
                self.loop.run()

    def run_loop(self) -> None:
        """A turn of its event loop."""
        with self.machine.running(self):
            self.loop.run()

    def take_turn(self) -> None:
        """A turn of its writer's thread, then of its event loop."""
        with self.machine.running(self):
            self.loop.run()
            self.writer._take_turn()
            self.loop.run()

    def bury(self) -> None:
        """It is dead: let go of what it had open, as the kernel does. Nothing of that reaches the disk."""
        self.dead = True
        seqlocks = getattr(self.writer, "seqlocks", None)
        if seqlocks is None or seqlocks._map.closed:
            return  # it had ended, or not really begun
        with self.machine.running(self):
            held = [*self.engine._read_connections]
            held += [getattr(self.writer, name) for name in ("_connection", "_anchor") if hasattr(self.writer, name)]
            for one in held:
                with contextlib.suppress(apsw.Error):
                    one.close(True)
        if self.ready:
            self.writer._writers_lock.close()
        seqlocks.close()


class _Seqlocks(Seqlocks):
    """Seqlocks whose changes are steps; a dead process changes nothing any more."""

    process: Process

    def __init__(self, database: Path) -> None:
        self.process = Machine.present.current
        super().__init__(database)

    def write_begin(self, locks: Any) -> None:
        self.process.step("seqlocks")
        if not self.process.dead:
            super().write_begin(locks)

    def write_end(self, locks: Any) -> None:
        self.process.step("seqlocks")
        if not self.process.dead:
            super().write_end(locks)


class _Time:
    """What stands in for the module `time`: moves a little with every look at it."""

    def monotonic(self) -> float:
        Machine.present.uptime += 0.000_01
        return Machine.present.uptime

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        Machine.present.uptime += seconds


class _WritersLock(WritersLock):
    """The lock of the writers, which nobody waits for in vain."""

    def __enter__(self) -> None:
        machine = Machine.present
        if machine.lock_holder is not None:
            raise Confused("a process waits for the lock, and the simulation lets nobody wait")
        machine.current.step("lock")
        machine.lock_holder = machine.current

    def __exit__(self, *_: object) -> None:
        machine = Machine.present
        if machine.lock_holder is machine.current:
            machine.lock_holder = None


class Machine:
    """The computer. `fault` is asked at every step, and raises or does what a story wants to happen there."""

    #: The one that runs; the stand-ins for modules ask it.
    present: Machine

    def __init__(self, folder: Path, chance: Random, files: dict[str, bytes], file_system: VirtualFileSystem) -> None:
        self.folder = folder
        self.chance = chance
        self.disk = Disk(files)
        self.now = START
        #: Seconds that never go back
        self.uptime = 1_000.0
        self.lock_holder: Process | None = None
        self.processes: list[Process] = []
        self.fault: Callable[[Process, str], None] = lambda process, what: None
        #: Everything that was done
        self.trace: list[object] = []
        self.current: Process
        self._started = 0
        self._file_system = file_system
        self._file_system.disk = self.disk
        self._shared = folder / f"{DATABASE}-cells"
        self._shared.unlink(missing_ok=True)
        Machine.present = self

    @contextlib.contextmanager
    def running(self, process: Process) -> Iterator[None]:
        """It has the processor."""
        before = getattr(self, "current", None)
        self._give(process)
        try:
            yield
        finally:
            if before is not None:
                self._give(before)

    def _give(self, process: Process) -> None:
        self.current = self._file_system.owner = process
        asyncio._set_running_loop(process.loop)  # type: ignore[arg-type]

    def step(self, process: Process, what: str) -> None:
        """A process is about to do something that could fail or be its last."""
        self.trace.append(f"    {process.number}: {what}")
        self.fault(process, what)

    def start_process(self) -> Process:
        """Start a server. Raises what opening raises, and the process has ended then."""
        self._started += 1
        process = Process(self, self._started)
        self.processes.append(process)
        try:
            process.call(process.engine.open())
        except BaseException:
            self.kill(process)
            raise
        process.ready = True
        return process

    def kill(self, process: Process) -> None:
        """SIGKILL it, or tidy up what was killed within a step."""
        process.bury()
        if process in self.processes:
            self.processes.remove(process)
        if self.lock_holder is process:
            self.lock_holder = None

    def stop(self, process: Process) -> None:
        """Ask it to end."""
        process.call(process.engine.close())
        self.processes.remove(process)

    def lose_power(self) -> None:
        """All processes end, and the disk forgets what was not synced."""
        for process in list(self.processes):
            self.kill(process)
        self.disk.lose_power(self.chance)
        # Of shared memory, a file that nobody syncs, any page may be there or not.
        if self._shared.exists():
            content = bytearray(self._shared.read_bytes())
            for start in range(0, len(content), PAGE):
                if self.chance.random() < 0.5:
                    content[start : start + PAGE] = bytes(len(content[start : start + PAGE]))
            self._shared.write_bytes(content)


@contextlib.contextmanager
def stand_ins(copy_pages: int) -> Iterator[None]:
    """The engine's modules meanwhile use the machine's time, locks and seqlocks, and keep their log short."""
    with contextlib.ExitStack() as patches:
        for module in (writer, checkpoints, sweeping, sqlite):
            patches.enter_context(mock.patch.object(module, "time", _Time()))
        patches.enter_context(mock.patch.object(writer, "WritersLock", _WritersLock))
        patches.enter_context(mock.patch.object(writer, "Seqlocks", _Seqlocks))
        patches.enter_context(mock.patch.object(writer, "COPY_PAGES", copy_pages))
        patches.enter_context(mock.patch.object(checkpoints, "WAIT_PAGES", 2 * copy_pages))
        patches.enter_context(mock.patch.object(connection, "BUSY_MILLISECONDS", 0))
        yield


@contextlib.contextmanager
def file_system() -> Iterator[VirtualFileSystem]:
    """The virtual file system, as SQLite's default meanwhile."""
    before = apsw.vfs_names()[0]
    made = VirtualFileSystem()
    apsw.set_default_vfs(VirtualFileSystem.NAME)
    try:
        yield made
    finally:
        apsw.set_default_vfs(before)
        made.unregister()
        asyncio._set_running_loop(None)
