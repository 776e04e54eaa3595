"""Fixtures that every test uses: access to the API servers, and a check that no test leaks threads."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from time import monotonic

import pytest
from hypothesis import HealthCheck, settings

from kevents._delivery.drop_reporter import DropReporter

pytest_plugins = ["tests.support.plugin"]

LEAK_TIMEOUT = 30.0
# A slow machine does not fail an example. All other settings, such as derandomized examples on CI, keep their defaults.
settings.register_profile("patient", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
settings.register_profile("nightly", max_examples=500)
settings.register_profile("fuzz", max_examples=10_000)


def pytest_configure() -> None:
    """Restore SIGINT for the programs that tests start: a shell that runs the tests in the background ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """Fail a test that leaves threads behind; threads that are ending are joined."""
    before = set(threading.enumerate())
    yield
    deadline = monotonic() + LEAK_TIMEOUT
    for thread in set(threading.enumerate()) - before:
        thread._started.wait(max(deadline - monotonic(), 0.0))  # type: ignore[attr-defined]
        thread.join(max(deadline - monotonic(), 0.0))
    assert [thread.name for thread in set(threading.enumerate()) - before if "pytest_timeout" not in thread.name] == []


@pytest.fixture(autouse=True)
def internal_faults_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an internal fault of kevents in the test that triggers it. In production it is logged and counted."""
    monkeypatch.setattr(DropReporter, "raise_internal", True)


@pytest.fixture(autouse=True)
def same_log_levels() -> Iterator[None]:
    """Restore the levels of all loggers after each test: building a client changes those of other libraries."""
    before = log_levels()
    yield
    for name, level in log_levels().items():
        if level != before.get(name, logging.NOTSET):
            logging.getLogger(name).setLevel(before.get(name, logging.NOTSET))


def log_levels() -> dict[str, int]:
    """The level of every existing logger."""
    loggers = list(logging.root.manager.loggerDict.items())
    return {name: logger.level for name, logger in loggers if isinstance(logger, logging.Logger)}
