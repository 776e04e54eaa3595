"""A section: one action at a time, also against an interruption of oneself."""

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
    """A section, and what was done in it."""
    return ReentrantSection(), []


def test_one_at_a_time() -> None:
    """Actions of many threads never overlap."""
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
    """What comes in the middle of an action is put off to its end, in the order of coming."""
    section, done = _new()

    def outer(name: str) -> None:
        section.run(done.append, "first")
        section.run(done.append, "second")
        done.append(name)

    section.run(outer, "outer")
    assert done == ["outer", "first", "second"]


def test_an_action_put_off_twice() -> None:
    """What comes in the middle of what was put off comes after that."""
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
    """What is left for afterwards runs in order, when the lock is free."""
    section, seen = ReentrantSection(), []

    def action(_: None) -> None:
        section.defer(lambda: seen.append(("first", section.is_held_here())))
        section.defer(lambda: seen.append(("second", section.is_held_here())))
        seen.append(("action", section.is_held_here()))

    section.run(action, None)
    assert seen == [("action", True), ("first", False), ("second", False)]


def test_afterwards_of_an_interruption() -> None:
    """What an action in the middle of another leaves for afterwards waits until the outer one has left the lock."""
    section, seen = ReentrantSection(), []

    def inner(_: None) -> None:
        section.defer(lambda: seen.append(section.is_held_here()))

    with section.lock:  # an interrupted reader, in the middle of no action
        section.run(inner, None)
        assert seen == []
    section.run(inner, None)
    assert seen == [False, False]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_action_that_raises(error: type[BaseException]) -> None:
    """It leaves the section free; what was put off, and what was left for afterwards, is done all the same."""
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
    """Fault 40: an action that comes before any step of another is done exactly once, and never in the middle of it."""
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
    """Of two actions that come one after the other, in the middle of a third, the first is done first."""
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
    """A serial number is the time, or one more than the last: a clock that stands or goes back makes no equal ones."""
    section = ReentrantSection()
    assert [section.next_serial(time) for time in (10, 10, 10, 20, 5, 0)] == [10, 11, 12, 20, 21, 22]


def test_renewed() -> None:
    """After :meth:`renew` the section is free, whoever held it; serial numbers go on growing."""
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
    """The time to a deadline is what a wait on a lock takes: never negative, never too long."""
    assert time_left(None) is None
    assert [time_left(-1.0), time_left(math.nan), time_left(math.inf)] == [0.0, 0.0, threading.TIMEOUT_MAX]
    left = time_left(monotonic() + 100)
    assert left is not None
    assert 90 < left <= 100
