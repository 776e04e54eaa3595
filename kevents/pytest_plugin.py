"""Fixtures for those who test controllers that record events; pytest finds them by itself.

``fake_recorder``, ``event_sink`` and ``event_clock`` are in memory, ``events_api_server`` speaks HTTP. Nothing else of
kevents is needed before one of them is asked for, so ``kevents.testing`` is imported only then.
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
    """Give a :class:`kevents.testing.FakeRecorder`: pass it for the recorder, then ``assert_event``.

    .. versionadded:: 0.1
    """
    from kevents.testing import FakeRecorder  # noqa: PLC0415 - see above

    return FakeRecorder()


@pytest.fixture
def event_sink() -> FakeSink:
    """Give a :class:`kevents.testing.FakeSink`: start a real broadcaster on it, and look at ``events()``.

    .. versionadded:: 0.1
    """
    from kevents.testing import FakeSink  # noqa: PLC0415 - see above

    return FakeSink()


@pytest.fixture
def event_clock() -> FakeClock:
    """Give a :class:`kevents.testing.FakeClock`: for a broadcaster's and a correlator's ``clock``.

    .. versionadded:: 0.1
    """
    from kevents.testing import FakeClock  # noqa: PLC0415 - see above

    return FakeClock()


@pytest.fixture
def events_api_server() -> Iterator[APIServer]:
    """Give a :class:`kevents.testing.APIServer`, started, ended with the test; ``kubeconfig()`` leads to it.

    .. versionadded:: 0.1
    """
    from kevents.testing import APIServer  # noqa: PLC0415 - see above

    with APIServer() as server:
        yield server
