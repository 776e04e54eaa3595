"""Pytest fixtures for tests of controllers that record events. Pytest finds them by itself.

``fake_recorder``, ``event_sink`` and ``event_clock`` are in memory; ``events_api_server`` speaks HTTP. Each fixture
imports ``kevents.testing`` when a test asks for it, so that other tests do not pay for the import.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kevents.testing import APIServer, FakeClock, FakeRecorder, FakeSink

__all__ = ["event_clock", "event_sink", "events_api_server", "fake_recorder"]


@pytest.fixture
def fake_recorder() -> FakeRecorder:
    """A :class:`kevents.testing.FakeRecorder`: give it to the code under test in place of a recorder."""
    from kevents.testing import FakeRecorder  # noqa: PLC0415 - imported on demand

    return FakeRecorder()


@pytest.fixture
def event_sink() -> FakeSink:
    """A :class:`kevents.testing.FakeSink`: start a real broadcaster on it, then look at ``events()``."""
    from kevents.testing import FakeSink  # noqa: PLC0415 - imported on demand

    return FakeSink()


@pytest.fixture
def event_clock() -> FakeClock:
    """A :class:`kevents.testing.FakeClock` for the ``clock`` of a broadcaster or a correlator."""
    from kevents.testing import FakeClock  # noqa: PLC0415 - imported on demand

    return FakeClock()


@pytest.fixture
def events_api_server() -> Iterator[APIServer]:
    """A running :class:`kevents.testing.APIServer`; ``kubeconfig()`` gives clients access. It stops with the test."""
    from kevents.testing import APIServer  # noqa: PLC0415 - imported on demand

    with APIServer() as server:
        yield server
