"""The gate of an outage: closed while the server is taken for unreachable, so that one request at a time asks for it.

It closes when as many different keys in a row as there are senders (at least two) met an unreachable server with
nothing answered between. While it is closed the sink makes single probes, and any answer opens it: at least forty a
second, if the server is quick to refuse, for a quarter of a second, since a server that fails by chance every second
call is slow, not gone; then at waits that double from 0.25 s. One key alone never closes it: that may be the key's own
fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from kevents._queue.work_item import Attempt

_QUICK_PAUSE = 0.025
_FIRST_WAIT = 0.25


class CircuitBreaker:
    """Pure: told what came back, and when.

    Args:
        senders: How many requests may be under way at once.
        longest_wait: The longest pause between two probes, in seconds.
        jitter: Gives the share of a pause that is really waited, between a half and one.
    """

    def __init__(self, senders: int, longest_wait: float, jitter: Callable[[], float]) -> None:
        """Open, with nothing heard yet."""
        self.open = False
        self.probing: Attempt | None = None
        self.probe_due = 0.0
        self.lost_at: float | None = None
        self.last_unavailable: float | None = None
        self._threshold = max(2, senders)
        self._longest_wait = longest_wait
        self._jitter = jitter
        self._streak: set[Hashable] = set()
        self._streak_began = float("inf")
        self._probes = 0
        self._answers = 0
        self._last_key: Hashable = None
        self._last_answer = 0
        self._answer_before = 0

    @property
    def answers(self) -> int:
        """How many answers came so far: a moment, for :meth:`answered_another`."""
        return self._answers

    def answered_another(self, key: Hashable, answers_before: int) -> bool:
        """Whether a key other than this one was answered since there had been so many answers."""
        latest = self._last_answer if self._last_key != key else self._answer_before
        return latest > answers_before

    def answered(self, key: Hashable) -> None:
        """The server answered a request of this key, whatever it said."""
        self._answers += 1
        if key != self._last_key:
            self._answer_before = self._last_answer
            self._last_key = key
        self._last_answer = self._answers
        self._streak.clear()
        self._streak_began = float("inf")
        self.open = False
        self.probing = None
        self.lost_at = None

    def began(self, attempt: Attempt) -> None:
        """A request begins: while the gate is closed, it is the probe."""
        if self.open:
            self.probing = attempt

    def unavailable(self, attempt: Attempt, now: float, after: float) -> None:
        """No answer to a request. One that began before the gate closed does not lengthen the pause."""
        self.last_unavailable = now
        if self.lost_at is None:
            self.lost_at = now
        self._streak.add(attempt.slot.key)
        self._streak_began = min(self._streak_began, attempt.began)
        if attempt is self.probing:
            self.probing = None
        elif self.open or len(self._streak) < self._threshold:
            return
        else:
            self.open = True
            self._probes = 0
        self.probe_due = now + max(min(self._longest_wait, self._pause(now)) * self._jitter(), after)

    def _pause(self, now: float) -> float:
        if now - self._streak_began < _FIRST_WAIT:
            return _QUICK_PAUSE
        self._probes += 1
        return _FIRST_WAIT * 2.0 ** min(self._probes - 1, 30)

    def let_go(self) -> None:
        """Nobody waits for the probe's answer any more: hold on to it, and to its event, no longer."""
        self.probing = None

    def flush_now(self, now: float) -> None:
        """Probe at once."""
        self.probe_due = min(self.probe_due, now)

    def cap(self, longest_wait: float) -> None:
        """Let no later pause be longer."""
        self._longest_wait = min(self._longest_wait, longest_wait)
