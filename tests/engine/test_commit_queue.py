"""Which writes share a commit: what waits, and on a slow disk what those ask for next who have just been answered."""

from __future__ import annotations

import threading
from collections import deque

from kvasir.engines.commit_queue import GROUP_BYTES, GROUP_MUTATIONS, Inbox, Job, take_group
from kvasir.model import Delete, Mutation, Set, Write

#: A disk on which waiting for the rest takes longer than any test
HOURS = 100_000.0


def jobs(count: int) -> list[Job]:
    return [Job(None, ()) for _ in range(count)]


def after_a_group_of(count: int) -> Inbox:
    """An inbox whose last commit was that of so many jobs."""
    inbox = Inbox()
    inbox.hand_over(jobs(count))
    group = inbox.next_group(HOURS, 0.0)
    assert group is not None
    assert len(group) == count
    return inbox


def size_of_next(inbox: Inbox, commit_seconds: float, *, later: int = 0) -> int:
    """The size of the next group, while so many jobs come one after another."""
    hands = [threading.Timer(0.03 * n, inbox.hand_over, (jobs(1),)) for n in range(1, later + 1)]
    for hand in hands:
        hand.start()
    group = inbox.next_group(HOURS, commit_seconds)
    for hand in hands:
        hand.join()
    assert group is not None
    return len(group)


def test_on_a_slow_disk_those_who_were_just_answered_share_the_next_commit() -> None:
    assert size_of_next(after_a_group_of(3), HOURS, later=3) == 3


def test_those_who_came_meanwhile_do_not_go_without_them() -> None:
    inbox = after_a_group_of(2)
    inbox.hand_over(jobs(1))
    assert size_of_next(inbox, HOURS, later=2) == 3


def test_on_a_fast_disk_nobody_is_waited_for() -> None:
    inbox = after_a_group_of(3)
    inbox.hand_over(jobs(1))
    assert size_of_next(inbox, 0.0) == 1


def test_a_lone_writer_waits_for_nobody() -> None:
    assert size_of_next(after_a_group_of(1), HOURS, later=1) == 1


def test_who_does_not_come_again_is_waited_for_once_and_not_long() -> None:
    inbox = after_a_group_of(3)
    assert size_of_next(inbox, 0.1, later=1) == 1
    assert size_of_next(inbox, HOURS, later=1) == 1


def test_at_the_end_nobody_is_waited_for() -> None:
    inbox = after_a_group_of(3)
    inbox.hand_over(jobs(1))
    inbox.hand_over(None)
    assert size_of_next(inbox, HOURS) == 1
    assert inbox.next_group(HOURS, HOURS) is None


def groups_of(count: int, *mutations: Mutation, writes: int = 1) -> list[int]:
    """How many of so many jobs with such writes share each commit."""
    waiting = deque(Job(None, [Write(2, mutations)] * writes) for _ in range(count))
    sizes = []
    while waiting:
        sizes.append(len(take_group(waiting)))
    return sizes


def test_a_commit_is_full_once_it_has_so_many_mutations_or_bytes() -> None:
    assert groups_of(GROUP_MUTATIONS + 1, Delete(b"a")) == [GROUP_MUTATIONS, 1]
    half = GROUP_MUTATIONS // 2
    assert groups_of(3, *[Delete(b"a")] * half) == [2, 1]
    assert groups_of(3, Delete(b"a"), writes=half) == [2, 1]
    assert groups_of(3, *[Delete(b"a")] * 3 * half) == [1, 1, 1]
    assert groups_of(3, Set(b"a", bytes(GROUP_BYTES // 2))) == [2, 1]
    assert groups_of(3, writes=0) == [3]
