"""Back-off of retries."""

from __future__ import annotations

from kevents.export._model.options import Backoff


class TestBackoff:
    """Retry delays."""

    def test_limits(self) -> None:
        """Delays grow up to the limit, never exceed it, and start again after `reset`."""
        backoff = Backoff(0.5, 60.0)
        for _ in range(3):
            waits = [backoff.next() for _ in range(2000)]
            assert max(waits[:1]) <= 0.5
            assert max(waits[:5]) <= 8.0
            assert 50.0 < max(waits) <= 60.0
            assert min(waits[10:]) < 10.0
            backoff.reset()

    def test_asked(self) -> None:
        """The server's Retry-After is the minimum delay."""
        assert Backoff(0.001, 0.001).next(7.0) == 7.0
