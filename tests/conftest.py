"""What every test shares: the doors to the servers, and the rule that it ends with the threads it began with."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

pytest_plugins = ["tests.support.plugin"]

LEAK_TIMEOUT = 5.0


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """A test ends with the threads it began with; one that is ending is waited for."""
    before = set(threading.enumerate())
    yield
    deadline = monotonic() + LEAK_TIMEOUT
    for thread in set(threading.enumerate()) - before:
        thread._started.wait(max(deadline - monotonic(), 0.0))  # type: ignore[attr-defined]
        thread.join(max(deadline - monotonic(), 0.0))
    assert [] == [thread.name for thread in set(threading.enumerate()) - before if "pytest_timeout" not in thread.name]


@pytest.fixture(autouse=True)
def quiet_kevents() -> Iterator[None]:
    """What kevents logs is seen by the tests that ask for it."""
    logger = logging.getLogger("kevents")
    level = logger.level
    yield
    logger.setLevel(level)
