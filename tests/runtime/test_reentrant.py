"""A reentrant section runs one action at a time, even if the running action is interrupted by another one."""

from __future__ import annotations

import math
import threading
from time import monotonic
from typing import Any

import pytest

from kevents._runtime.reentrant import ReentrantSection, time_left
from tests.support.interrupts import interrupted
from tests.support.sinks import PATIENCE


def _new() -> tuple[ReentrantSection, list[Any]]:
    """A section, and a list of its finished actions."""
    return ReentrantSection(), []


def test_one_at_a_time() -> None:
    """Actions of several threads never overlap."""
    section, inside, overlaps = ReentrantSection(), [], []
    begin = threading.Barrier(8)

    def action(number: int) -> None:
        inside.append(number)
        if len(inside) > 1:
            overlaps.append(list(inside))
        inside.remove(number)

    def work(number: int) -> None:
        begin.wait(PATIENCE)
        for _ in range(2000):
            section.run(action, number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert overlaps == []


def test_an_action_within_another_comes_after_it() -> None:
    """Actions started within an action run after it, in the order of their start."""
    section, done = _new()

    def outer(name: str) -> None:
        section.run(done.append, "first")
        section.run(done.append, "second")
        done.append(name)

    section.run(outer, "outer")
    assert done == ["outer", "first", "second"]


def test_an_action_put_off_twice() -> None:
    """An action started within a postponed action runs after that one."""
    section, done = _new()

    def middle(name: str) -> None:
        section.run(done.append, "inner")
        done.append(name)

    def outer(name: str) -> None:
        section.run(middle, "middle")
        done.append(name)

    section.run(outer, "outer")
    assert done == ["outer", "middle", "inner"]


def test_afterwards_the_lock_is_free() -> None:
    """Deferred calls run in order, after the lock is released."""
    section, seen = ReentrantSection(), []

    def action(_: None) -> None:
        section.defer(lambda: seen.append(("first", section.is_held_here())))
        section.defer(lambda: seen.append(("second", section.is_held_here())))
        seen.append(("action", section.is_held_here()))

    section.run(action, None)
    assert seen == [("action", True), ("first", False), ("second", False)]


def test_afterwards_of_an_interruption() -> None:
    """Deferred calls of an action within another one wait until the outer one has released the lock."""
    section, seen = ReentrantSection(), []

    def inner(_: None) -> None:
        section.defer(lambda: seen.append(section.is_held_here()))

    with section.lock:  # an interrupted reader, outside of any action
        section.run(inner, None)
        assert seen == []
    section.run(inner, None)
    assert seen == [False, False]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_action_that_raises(error: type[BaseException]) -> None:
    """An action that raises releases the section. Postponed actions and deferred calls still run."""
    section, done = _new()

    def action(_: None) -> None:
        section.run(done.append, "put off")
        section.defer(lambda: done.append("afterwards"))
        raise error

    with pytest.raises(error):
        section.run(action, None)
    assert done == ["put off", "afterwards"]
    section.run(done.append, "next")
    assert done[-1] == "next"
    assert not section.is_held_here()


def test_interrupted_anywhere() -> None:
    """Fault 40: an action that interrupts another at any step runs exactly once, and never in the middle of it."""
    at, more = 0, True
    while more:
        at += 1
        section, done = _new()

        def action(name: str, done: list[str] = done) -> None:
            done.append(name)
            done.append(name)

        more = interrupted(
            lambda section=section, action=action: section.run(action, "outer"),  # type: ignore[misc]
            at,
            lambda section=section, action=action: section.run(action, "inner"),  # type: ignore[misc]
        )
        expected = [["inner"] * 2 + ["outer"] * 2, ["outer"] * 2 + ["inner"] * 2] if more else [["outer"] * 2]
        assert done in expected
    assert at > 10


def test_two_interruptions_keep_their_order() -> None:
    """Two actions that interrupt a third run in the order of their start."""
    at, more = 0, True
    while more:
        at += 1
        section, done = _new()

        def both(section: ReentrantSection = section, done: list[int] = done) -> None:
            section.run(done.append, 1)
            section.run(done.append, 2)

        more = interrupted(lambda section=section: section.run(lambda _: None, None), at, both)  # type: ignore[misc]
        assert done == ([1, 2] if more else [])


def test_serial_numbers() -> None:
    """A serial number is the time, or the previous number plus one: a stopped clock never repeats one."""
    section = ReentrantSection()
    assert [section.next_serial(time) for time in (10, 10, 10, 20, 5, 0)] == [10, 11, 12, 20, 21, 22]


def test_renewed() -> None:
    """`reset` frees the section even if another thread holds it. Serial numbers keep growing."""
    section, done = _new()
    section.next_serial(100)
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait(PATIENCE)

    lock = section.lock
    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    section.reset()
    section.run(done.append, "free")
    assert done == ["free"]
    assert section.next_serial(50) == 101
    over.set()
    thread.join(PATIENCE)


def test_time_left() -> None:
    """The time left to a deadline is valid for a wait on a lock: never negative, never too long."""
    assert time_left(None) is None
    assert [time_left(-1.0), time_left(math.nan), time_left(math.inf)] == [0.0, 0.0, threading.TIMEOUT_MAX]
    left = time_left(monotonic() + 100)
    assert left is not None
    assert 90 < left <= 100
