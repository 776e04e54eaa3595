"""What kevents itself logs: the first of a kind at once with what to do about it, later ones summed up."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from enum import Enum
from typing import Final

from cachetools import TTLCache

from kevents._model.wire import printable

LOGGER: Final = logging.getLogger("kevents")

_speaking: ContextVar[Sequence[bool]] = ContextVar("kevents_speaking", default=(False,))
"""A mark that is shared with the tasks which are begun meanwhile, so that it ends for them too."""


def is_in_kevents() -> bool:
    """Whether this thread, or task, is in the middle of logging or sending for kevents."""
    return _speaking.get()[0]


@contextmanager
def in_kevents() -> Iterator[None]:
    """What is recorded within is kevents' own echo; what is begun within speaks for itself after the end."""
    before, mark = _speaking.get(), [True]
    try:
        _speaking.set(mark)  # within the try: Ctrl-C at any moment must not leave the thread speaking for ever
        yield
    finally:
        mark[0] = False
        _speaking.set(before)


class LimitedLog:
    """Logs the first of a kind, and then at most one summary a minute.

    Args:
        period: Seconds of silence after a line of a kind.
    """

    def __init__(self, period: float = 60.0) -> None:
        """Start with nothing said."""
        self._period = period
        self.renew()

    def renew(self) -> None:
        """Forget everything: also after a fork, where another thread may have held the lock."""
        self._lock = threading.RLock()  # guards the memory of what was said; never held while logging
        self._said: TTLCache[Hashable, bool] = TTLCache(maxsize=256, ttl=self._period)
        self._silent: dict[tuple[Hashable, int], int] = {}
        self._looking = False

    def log_limited(
        self,
        kind: Hashable,
        text: str | Callable[[], str],
        *,
        events: int = 1,
        level: int = logging.WARNING,
        logger: logging.Logger = LOGGER,
    ) -> None:
        """Log a line of a kind, unless one was logged lately; then it is counted into the next, and not even made."""
        hidden = self._admit((kind, level), events)
        if hidden is not None:
            line = text if isinstance(text, str) else text()
            more = f" (and {hidden} more like it since the last such line)" if hidden else ""
            log_limited(level, line + more, logger=logger)

    def _admit(self, kind: tuple[Hashable, int], events: int) -> int | None:
        """How many were kept silent since the last line; None if this one is to be silent too."""
        with self._lock:
            # A signal handler may come back here while the cache is being changed: then it is only counted.
            if self._looking or kind in self._said:
                self._silent[kind] = self._silent.get(kind, 0) + events
                return None
            try:
                self._looking = True
                self._said[kind] = True
                return self._silent.pop(kind, 0)
            finally:
                self._looking = False

    def sum_up(self) -> None:
        """Log what was counted and not yet said: at the end."""
        with self._lock:
            silent, self._silent = self._silent, {}
        for (kind, level), events in silent.items():
            log_limited(level, f"{events} more like the last line about {_name(kind)}")


def _name(kind: Hashable) -> str:
    return ", ".join(str(part.value if isinstance(part, Enum) else part) for part in _parts(kind))


def _parts(kind: Hashable) -> Iterator[Hashable]:
    """What a kind is made up of, however deep."""
    if isinstance(kind, tuple):
        for part in kind:
            yield from _parts(part)
    elif kind is not None:
        yield kind


def log_limited(level: int, text: str, *, logger: logging.Logger = LOGGER) -> None:
    """Log one line, as one line. A handler that records an event hears only its own echo."""
    with in_kevents():
        try:
            logger.log(level, "%s", printable(text))
        except KeyboardInterrupt:
            raise  # the user's, in his thread
        except BaseException as error:  # noqa: BLE001 - a broken log handler must not break who records, or a worker
            with suppress(Exception):  # where nobody listens, nobody can be told
                sys.stderr.write(f"kevents: a log handler raised {type(error).__name__}\n")
