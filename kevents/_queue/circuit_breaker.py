"""The circuit breaker: while the API server, or a namespace, is unavailable, one request at a time probes it.

The work queue has one breaker for the server and one for each namespace. Closed: requests pass. The breaker opens when
as many different keys in a row as there are senders (at least two) got no answer. A single key never opens it: the
cause may be that key.

Open: no request passes until the next probe is due. Half-open: one probe is in flight. Any answer closes the breaker.

Pauses between probes: 25 ms until the row of failures has lasted 250 ms, because a server that fails every second
call is slow, not gone. Then 0.25 s, doubled after each failed probe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from kevents._queue.work_item import Attempt

_QUICK_PAUSE = 0.025
_FIRST_PAUSE = 0.25


class CircuitBreaker:
    """Pure: outcomes and times are passed in.

    ``senders`` is the most requests in flight, ``longest_pause`` the longest pause between two probes in seconds.
    ``jitter`` returns a factor for each pause, between a half and one.
    """

    def __init__(self, senders: int, longest_pause: float, jitter: Callable[[], float]) -> None:
        self.open = False  # True until the next answer
        self.probe: Attempt | None = None  # in flight
        self.probe_due = 0.0  # when the next probe may start
        self.unavailable_since: float | None = None  # the first failure since the last answer
        self.last_unavailable: float | None = None  # the last failure
        self._threshold = max(2, senders)
        self._longest_pause = longest_pause
        self._jitter = jitter
        self._failed_keys: set[Hashable] = set()
        self._failing_since = float("inf")
        self._probes = 0
        self._answers = 0
        self._last_key: Hashable = None
        self._last_answer = 0
        self._answer_before = 0

    @property
    def answers(self) -> int:
        """The number of answers so far: a mark for :meth:`answered_another`."""
        return self._answers

    def answered_another(self, key: Hashable, answers_before: int) -> bool:
        """True if the server has answered another key since answer number ``answers_before``."""
        latest = self._last_answer if self._last_key != key else self._answer_before
        return latest > answers_before

    def answered(self, key: Hashable) -> None:
        """The server answered a request for the key, whatever the answer."""
        self._answers += 1
        if key != self._last_key:
            self._answer_before = self._last_answer
            self._last_key = key
        self._last_answer = self._answers
        self._failed_keys.clear()
        self._failing_since = float("inf")
        self.open = False
        self.probe = None
        self.unavailable_since = None

    def began(self, attempt: Attempt) -> None:
        """A request starts. While the breaker is open, it is the probe, unless one is in flight."""
        if self.open and self.probe is None:
            self.probe = attempt

    def unavailable(self, attempt: Attempt, now: float, after: float) -> None:
        """A request got no answer. Requests that started before the opening do not lengthen the pause.

        ``after`` is the shortest pause that the server asks for, in seconds.
        """
        self.last_unavailable = now
        if self.unavailable_since is None:
            self.unavailable_since = now
        self._failed_keys.add(attempt.item.key)
        self._failing_since = min(self._failing_since, attempt.began)
        if attempt is self.probe:
            self.probe = None
        elif self.open or len(self._failed_keys) < self._threshold:
            return
        else:
            self.open = True
            self._probes = 0
        pause = min(self._longest_pause, self._next_pause(now)) * self._jitter()
        self.probe_due = now + max(pause, after)

    def _next_pause(self, now: float) -> float:
        if now - self._failing_since < _FIRST_PAUSE:
            return _QUICK_PAUSE
        self._probes += 1
        return _FIRST_PAUSE * 2.0 ** min(self._probes - 1, 30)

    def probe_now(self, now: float) -> None:
        """Make the next probe due now."""
        self.probe_due = min(self.probe_due, now)

    def limit_pause(self, longest_pause: float) -> None:
        """Make no later pause longer than ``longest_pause`` seconds."""
        self._longest_pause = min(self._longest_pause, longest_pause)
