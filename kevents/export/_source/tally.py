"""What a stream has seen, in numbers, and the little that it says about it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from time import monotonic

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.exceptions import StatusError

_FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """What a stream has seen so far; each is a number of its own, none is taken back.

    Attributes:
        revisions: Records of events that were made.
        old: Revisions that came again, and were not told again.
        unreadable: Things in lists and watches that were no events.
        lists: Whole lists that were read.
        watches: Watches that were begun.
        gone: How often the server did not know the version any more.
        failures: Requests that failed in other ways; each was tried again.
        gaps: Gaps that were written down.
        resets: How often the storage turned out to be an earlier one.

    .. versionadded:: 0.1
    """

    revisions: int = 0
    old: int = 0
    unreadable: int = 0
    lists: int = 0
    watches: int = 0
    gone: int = 0
    failures: int = 0
    gaps: int = 0
    resets: int = 0


class Tally:
    """Counts for one stream, and logs; written by the thread that reads.

    Args:
        scope: The namespace that is read; empty: all.
        log: Keeps the lines few.
    """

    def __init__(self, scope: str, log: LimitedLog) -> None:
        """Nothing has been seen."""
        self.counted = SourceStatistics()
        self._what = f"events of namespace {scope}" if scope else "the events of all namespaces"
        self._log = log
        self._failing: float | None = None

    def add(
        self,
        *,
        revisions: int = 0,
        unreadable: int = 0,
        lists: int = 0,
        watches: int = 0,
        gone: int = 0,
    ) -> None:
        """Count what went well, and what is the ordinary course of things."""
        counted = self.counted
        self.counted = replace(
            counted,
            revisions=counted.revisions + revisions,
            unreadable=counted.unreadable + unreadable,
            lists=counted.lists + lists,
            watches=counted.watches + watches,
            gone=counted.gone + gone,
        )
        if unreadable:
            self._say("unreadable", f"{unreadable} of {self._what} cannot be read, and are left out", logging.ERROR)

    def gap(self, gap: object) -> None:
        """Count a gap, and say it."""
        self.counted = replace(self.counted, gaps=self.counted.gaps + 1)
        self._say("gap", f"some of {self._what} may be missing, which is written down: {gap}", logging.ERROR)

    def reset(self) -> None:
        """Count that the storage is an earlier one, and say it."""
        self.counted = replace(self.counted, resets=self.counted.resets + 1)
        self._say("reset", f"the API server's storage was reset: {self._what} are read afresh", logging.ERROR)

    def failed(self, error: BaseException) -> None:
        """Count a request that failed, and say what can be done about it."""
        self.counted = replace(self.counted, failures=self.counted.failures + 1)
        if self._failing is None:
            self._failing = monotonic()
        kind, text = type(error).__name__, format_error(error)
        if isinstance(error, StatusError):
            kind = str(error.code)
            if error.code == _FORBIDDEN:
                text += '; a role must allow "list" and "watch" of "events" in the API group "" there'
        self._say(kind, f"{self._what} cannot be read now, which is tried again: {text}", logging.WARNING)

    def succeeded(self) -> None:
        """A request went well; say so if others had not."""
        if self._failing is not None:
            seconds, self._failing = monotonic() - self._failing, None
            self._say("again", f"{self._what} are read again after {seconds:.0f} s", logging.INFO)

    def _say(self, kind: str, text: str, level: int) -> None:
        self._log.log_limited((self._what, kind), text, level=level)
