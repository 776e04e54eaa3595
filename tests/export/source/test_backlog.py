"""A backlog in order, in memory or in a file, and waits that grow."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export._model.backoff import Backoff
from kevents.export._source.backlog import Backlog


@given(st.lists(st.tuples(st.integers(0, 10**30), st.binary(max_size=50)), max_size=200), st.integers(1, 5000))
def test_order(items: list[tuple[int, bytes]], most: int) -> None:
    """However many bytes are kept in memory, the items come in the order of their numbers, each once."""
    with Backlog(most) as backlog:
        for number, item in items:
            backlog.add(number, item)
        assert len(items) == len(backlog)
        found = list(backlog.in_order())
    assert sorted(number for number, _ in items) == [number for number, _ in found]
    assert sorted(items) == sorted(found)


def test_memory() -> None:
    """No file is made while everything fits; what does not is in the file."""
    with Backlog(100_000) as backlog:
        for number in range(100):
            backlog.add(number, b"x" * 100)
        assert backlog.spilled == 0
        for number in range(900):
            backlog.add(number, b"x" * 100)
        assert backlog.spilled > 90_000


def test_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary folder that takes nothing is an error of the system."""

    def full(**options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with Backlog(10) as backlog, pytest.raises(OSError, match="No space left"):
        backlog.add(1, b"x" * 100)


class TestBackoff:
    """How long to wait."""

    def test_limits(self) -> None:
        """RetryWaits grow up to their limit, are never above it, and begin anew when it went well."""
        backoff = Backoff(0.5, 60.0)
        for _ in range(3):
            waits = [backoff.next() for _ in range(2000)]
            assert max(waits[:1]) <= 0.5
            assert max(waits[:5]) <= 8.0
            assert 50.0 < max(waits) <= 60.0
            assert min(waits[10:]) < 10.0
            backoff.reset()

    def test_asked(self) -> None:
        """What the server asks for is the least."""
        assert Backoff(0.001, 0.001).next(7.0) == 7.0
