"""The log of kevents itself: the first line of a kind at once, then at most one summary a minute."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from enum import Enum
from types import CodeType, FrameType
from typing import Final

from cachetools import TTLCache

from kevents._model.wire import ELLIPSIS, printable

LOGGER: Final = logging.getLogger("kevents")

LINE_LIMIT: Final = 1000


class _Mark:
    """Marks a block of kevents' own work. Tasks that start within the block share the mark, and see its end."""

    __slots__ = ("active", "code")

    def __init__(self, code: CodeType) -> None:
        self.active = True
        self.code = code  # of the function with the block


MARK: ContextVar[_Mark | None] = ContextVar("kevents_mark", default=None)
"""Set within kevents' own work. A recorder need not look further while it is None."""
_FINALIZE: Final = weakref.finalize.__call__.__code__


def is_in_kevents() -> bool:
    """True if the caller was called by kevents' own logging, sink or callback."""
    mark = MARK.get()
    return mark is not None and mark.active and not _is_in_finaliser(mark.code)


def _is_in_finaliser(code: CodeType) -> bool:
    """True if the interpreter runs a finaliser in the middle of the block: ``__del__`` or ``weakref.finalize``."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect.currentframe() is the same
    while frame is not None and frame.f_code is not code:
        if frame.f_code.co_name == "__del__" or frame.f_code is _FINALIZE:
            return True
        frame = frame.f_back
    return False


@contextmanager
def in_kevents() -> Iterator[None]:
    """Mark the block as kevents' own work: events recorded within it are dropped as ``recursion``."""
    before, mark = MARK.get(), _Mark(sys._getframe(2).f_code)  # noqa: SLF001
    try:
        MARK.set(mark)  # within the try: Ctrl-C must never leave the mark set
        yield
    finally:
        mark.active = False
        MARK.set(before)


class LimitedLog:
    """Logs the first line of a kind, then counts further ones into the next line, after ``period`` seconds."""

    def __init__(self, period: float = 60.0) -> None:
        self._period = period
        self.reset()

    def reset(self) -> None:
        """Forget all lines and replace the lock: after a fork, another thread may have held it."""
        self._lock = threading.RLock()  # guards the fields below; never held while logging
        self._logged: TTLCache[Hashable, bool] = TTLCache(maxsize=256, ttl=self._period)
        self._suppressed: dict[tuple[Hashable, int], int] = {}
        self._busy = False

    def log_limited(
        self,
        kind: Hashable,
        text: str | Callable[[], str],
        *,
        events: int = 1,
        level: int = logging.WARNING,
        logger: logging.Logger = LOGGER,
    ) -> None:
        """Log a line, or count its events if a line of its kind and level was logged within the period.

        A function that makes the text is called only if the line is logged.
        """
        suppressed = self._admit((kind, level), events)
        if suppressed is not None:
            line = text if isinstance(text, str) else text()
            more = f" (and {suppressed} more like it since the last such line)" if suppressed else ""
            log_line(level, shorten(line, LINE_LIMIT - len(more)) + more, logger=logger)

    def _admit(self, kind: tuple[Hashable, int], events: int) -> int | None:
        """Events suppressed since the last line of this kind. None if this line is suppressed as well."""
        with self._lock:
            # A signal handler may enter here while the cache changes. Then its line is only counted.
            if self._busy or kind in self._logged:
                self._suppressed[kind] = self._suppressed.get(kind, 0) + events
                return None
            try:
                self._busy = True
                self._logged[kind] = True
                return self._suppressed.pop(kind, 0)
            finally:
                self._busy = False

    def log_suppressed(self) -> None:
        """Log the counts of suppressed lines. Called at shutdown."""
        with self._lock:
            suppressed, self._suppressed = self._suppressed, {}
        for (kind, level), events in suppressed.items():
            about = ", ".join(str(part.value if isinstance(part, Enum) else part) for part in _flatten(kind))
            log_line(level, f"{events} more like the last line about {about}")


def _flatten(kind: Hashable) -> Iterator[Hashable]:
    """The parts of a nested tuple without None."""
    if isinstance(kind, tuple):
        for part in kind:
            yield from _flatten(part)
    elif kind is not None:
        yield kind


def log_line(level: int, text: str, *, logger: logging.Logger = LOGGER, error: BaseException | None = None) -> None:
    """Log one record of at most 1,000 characters, and an error's traceback. Raises only on Ctrl-C."""
    with in_kevents():
        try:
            logger.log(level, "%s", shorten(text), exc_info=error)
        except KeyboardInterrupt:
            raise  # meant for the user's code in this thread
        except BaseException as failure:  # noqa: BLE001 - a broken log handler must not break a recorder or a worker
            with suppress(Exception):  # without a standard error there is no place left to report to
                sys.stderr.write(f"kevents: a log handler raised {type(failure).__name__}\n")


def shorten(text: str, limit: int = LINE_LIMIT) -> str:
    """The text with control characters escaped, cut to ``limit`` characters."""
    line = printable(text[: limit + 1])
    return line if len(line) <= limit else line[: limit - len(ELLIPSIS)] + ELLIPSIS
