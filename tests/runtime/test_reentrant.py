"""Counters and serial numbers are exact at any moment, and postponed calls are made once."""

from __future__ import annotations

import math
import threading
from time import monotonic

import pytest

from kevents._runtime.reentrant import MILLISECOND, Counter, Shared, time_left
from tests.support.interrupts import interrupted
from tests.support.sinks import PATIENCE


def test_counter() -> None:
    """A counter is exact although several threads add to it."""
    counter, begin = Counter(), threading.Barrier(8)

    def work() -> None:
        begin.wait(PATIENCE)
        for _ in range(2000):
            next(counter.steps)

    threads = [threading.Thread(target=work) for _ in range(8)]
    assert counter.value == 0
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (counter.value, counter.value) == (16_000, 16_000)


def test_calls() -> None:
    """Calls are made at once, in their order."""
    shared, done = Shared(), []
    shared.postponed += ((done.append, ("left by an operator",)),)
    shared.call(done.append, "called")
    assert done == ["left by an operator", "called"]


def test_no_call_while_the_lock_is_held() -> None:
    """A thread that holds the lock postpones the calls until the lock is free."""
    shared, done = Shared(), []
    with shared.lock:
        shared.call(done.append, "first")
        shared.call(lambda: done.append(shared.is_held_here()))
        assert done == []
    shared.run_postponed()
    assert done == ["first", False]


def test_another_thread_makes_the_call() -> None:
    """A postponed call is made by the next thread that can make it."""
    shared, done = Shared(), []
    with shared.lock:
        shared.call(done.append, "postponed")
        thread = threading.Thread(target=shared.run_postponed)
        thread.start()
        thread.join(PATIENCE)
        assert done == ["postponed"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_call_that_raises(error: type[BaseException]) -> None:
    """A call that raises is not repeated, and the calls after it are made."""
    shared, done = Shared(), []

    def fail() -> None:
        done.append("failed")
        raise error

    shared.postponed += ((fail, ()), (done.append, ("next",)))
    with pytest.raises(error):
        shared.run_postponed()
    shared.run_postponed()
    assert done == ["failed", "next"]


def test_a_call_where_the_stack_ends() -> None:
    """A call that raises RecursionError is repeated later, not at once."""
    shared, tries = Shared(), []

    def deep() -> None:
        tries.append(None)
        if len(tries) == 1:
            raise RecursionError

    shared.call(deep)
    assert len(tries) == 1
    shared.run_postponed()
    shared.run_postponed()
    assert len(tries) == 2


def test_interrupted_anywhere() -> None:
    """Fault 40: a call that interrupts the postponed calls at any step is made once, and so are they."""
    at, more = 0, True
    while more:
        at += 1
        shared, done = Shared(), []
        shared.postponed += ((done.append, ("first",)), (done.append, ("second",)))
        more = interrupted(
            shared.run_postponed,
            at,
            lambda shared=shared, done=done: shared.call(done.append, "inner"),  # type: ignore[misc]
        )
        shared.run_postponed()
        assert sorted(done) == (["first", "inner", "second"] if more else ["first", "second"])
    assert at > 10


def test_serial_numbers_of_processes() -> None:
    """Serial numbers of a forked child start at random within the millisecond."""
    shared, starts = Shared(), set()
    for _ in range(20):
        shared.reset()
        starts.add(next(shared.numbers))
    assert len(starts) > 15
    assert 0 <= min(starts) <= max(starts) < MILLISECOND


def test_renewed() -> None:
    """A reset replaces a lock that is held, and drops the postponed calls."""
    shared, done = Shared(), []
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait(PATIENCE)

    lock = shared.lock
    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    shared.postponed += ((done.append, ("the parent's",)),)
    shared.reset()
    with shared.lock:
        assert shared.is_held_here()
    shared.call(done.append, "free")
    assert done == ["free"]
    over.set()
    thread.join(PATIENCE)


def test_time_left() -> None:
    """The time to a deadline is never negative and never longer than a lock accepts."""
    assert time_left(None) is None
    assert [time_left(-1.0), time_left(math.nan), time_left(math.inf)] == [0.0, 0.0, threading.TIMEOUT_MAX]
    left = time_left(monotonic() + 100)
    assert left is not None
    assert 90 < left <= 100
