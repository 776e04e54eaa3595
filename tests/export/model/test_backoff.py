"""The back-off of retries."""

from __future__ import annotations

from kevents.export._model.options import Backoff


class TestBackoff:
    """How long to wait."""

    def test_limits(self) -> None:
        """Waits grow up to their limit, are never above it, and begin anew when it went well."""
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
