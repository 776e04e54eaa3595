"""What a running export says of itself: a line that is redrawn on a terminal, a log line a minute elsewhere."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, TextIO

from kevents._model.wire import printable
from kevents.export._config.secrets import KNOWN
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics
from kevents.export._operate.logs import FIELDS, LOGGER

_REDRAWN: Final = 0.5
_LOGGED: Final = 60.0
_ERASE: Final = "\r\x1b[K"
_JOIN: Final = 5.0


def status(statistics: ExportStatistics, rate: float) -> str:
    """Say in a line how an export goes.

    Args:
        statistics: Its ledgers.
        rate: Records read in a second, lately.
    """
    read = sum(stream.read for stream in statistics.streams)
    gaps = sum(stream.gaps for stream in statistics.streams)
    parts = [f"{statistics.state}: {read:,} read, {rate:,.0f}/s", *map(_sink, statistics.destinations)]
    return printable(KNOWN.clean(" | ".join([*parts, f"{gaps} gaps"] if gaps else parts)))


def _sink(sink: DestinationStatistics) -> str:
    text = f"{sink.name}: {sink.written:,} durable, {sink.waiting:,} waiting"
    lost = sink.dropped + sink.refused
    text += f", {sink.dead_lettered:,} dead letters" if sink.dead_lettered else ""
    text += f", {lost:,} lost" if lost else ""
    return text + (f", failing: {sink.last_error}" if sink.failing else "")


def figures(statistics: ExportStatistics) -> dict[str, Any]:
    """Give the figures of a log line."""
    return {
        "state": statistics.state,
        "read": sum(stream.read for stream in statistics.streams),
        "gaps": sum(stream.gaps for stream in statistics.streams),
        "sinks": {
            sink.name: {
                "durable": sink.written,
                "waiting": sink.waiting,
                "retries": sink.retries,
                "dead_letters": sink.dead_lettered,
                "lost": sink.dropped + sink.refused,
            }
            for sink in statistics.destinations
        },
    }


class StatusLine:
    """A stream for logs that keeps a line of status below them, redrawn in place.

    Args:
        stream: A terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        """Show nothing yet."""
        self._stream = stream
        self._lock = threading.RLock()  # also a signal handler logs, in the middle of a redraw
        self._line = ""

    def write(self, text: str) -> int:
        """Write log lines above the status."""
        with self._lock:
            self._stream.write(f"{_ERASE if self._line else ''}{text}{self._line if text.endswith(chr(10)) else ''}")
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        self._stream.flush()

    def show(self, line: str) -> None:
        """Put another status in place of the last; an empty one takes it away."""
        encoding = getattr(self._stream, "encoding", None) or "ascii"
        safe = line.encode(encoding, "backslashreplace").decode(encoding)
        with self._lock:
            shown = safe[: max(shutil.get_terminal_size().columns - 1, 20)]
            self._stream.write(f"{_ERASE}{shown}")
            self._stream.flush()
            self._line = shown


class Progress:
    """Tells every now and then how an export goes, in a thread of its own. A context manager.

    Args:
        statistics: Gives the ledgers.
        line: Where the status is redrawn; None: it is logged once a minute.
        logger: Where to.
    """

    def __init__(
        self,
        statistics: Callable[[], ExportStatistics],
        line: StatusLine | None,
        logger: logging.Logger = LOGGER,
    ) -> None:
        """Prepare."""
        self._statistics = statistics
        self._line = line
        self._logger = logger
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kevents-progress", daemon=True)

    def __enter__(self) -> Progress:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End, and take the status away."""
        self._ended.set()
        self._thread.join(_JOIN)
        if self._line is not None:
            self._line.show("")

    def _run(self) -> None:
        last, read = monotonic(), 0
        while not self._ended.wait(_LOGGED if self._line is None else _REDRAWN):
            ledgers = self._statistics()
            if self._line is None:
                self._logger.info("progress", extra={FIELDS: figures(ledgers)})
                continue
            now, total = monotonic(), sum(stream.read for stream in ledgers.streams)
            self._line.show(status(ledgers, (total - read) / max(now - last, 0.001)))
            last, read = now, total
