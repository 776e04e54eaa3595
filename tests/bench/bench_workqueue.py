"""Benchmarks of the work queue for each write: offered, taken, done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kevents._queue.outcome import Delivered
from kevents._queue.work_item import Attempt
from kevents._queue.workqueue import WorkQueue
from tests.bench.subjects import event

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("pytest_benchmark")

WRITES = 1_000


def queue() -> WorkQueue:
    """Return a queue with space for all writes."""
    return WorkQueue(senders=4, backlog=WRITES, max_age=3600.0, sleep_duration=10.0, jitter=lambda: 1.0)


def work_off(waiting: WorkQueue) -> None:
    """Process all pending writes."""
    while isinstance(step := waiting.take(1.0), Attempt):
        waiting.done(step, Delivered(), 2.0, 0.0)


def test_different_keys(benchmark: BenchmarkFixture) -> None:
    """1,000 creates of different objects."""
    states = [event(number, about=number) for number in range(WRITES)]

    def offer_and_work_off(waiting: WorkQueue) -> None:
        for state in states:
            waiting.offer(state, 0.0, present=False)
        work_off(waiting)
        assert waiting.delivered == WRITES

    benchmark.pedantic(offer_and_work_off, setup=lambda: ((queue(),), {}), rounds=20)


def test_merged(benchmark: BenchmarkFixture) -> None:
    """1,000 counts of one object are merged into one write."""
    states = [event(1).replace(count=number + 2, name="web-0.1") for number in range(WRITES)]

    def offer_and_work_off(waiting: WorkQueue) -> None:
        for state in states:
            waiting.offer(state, 0.0, present=True)
        work_off(waiting)
        assert (waiting.merged, waiting.delivered) == (WRITES - 1, WRITES)

    benchmark.pedantic(offer_and_work_off, setup=lambda: ((queue(),), {}), rounds=20)
