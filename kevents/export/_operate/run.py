"""The command ``kevents export``: runs an export until a signal, and shows its progress."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TextIO

from kevents._model.wire import printable
from kevents.export._config.secrets import KNOWN
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics
from kevents.export._operate.logs import FIELDS, LOGGER, StatusLine, is_terminal, logging_to

if TYPE_CHECKING:
    from kevents.export._operate.build import Parts

UNACKNOWLEDGED: Final = 1
_SIGNALS: Final = ("SIGTERM", "SIGINT")
_REDRAW_PERIOD: Final = 0.5  # seconds
_LOG_PERIOD: Final = 60.0
_JOIN_TIMEOUT: Final = 5.0


def run_export(parts: Parts) -> int:
    """Run an export until SIGTERM or Ctrl-C. A second signal ends the process at once, which loses nothing.

    Returns:
        0, or 1 if not everything that was read was acknowledged in time. The next run reads it again.

    Raises:
        Exception: The error of the export.
    """
    exporter = parts.exporter
    with ExitStack() as stack:
        if parts.health is not None:
            stack.enter_context(parts.health)
            LOGGER.info("metrics and probes at %s", parts.health.address)
        received = stack.enter_context(_signals(exporter.stop))
        LOGGER.info("the export begins")
        try:
            left = exporter.run()
        finally:
            why = f" after {received[0]}" if received else ""
            LOGGER.info("the export has ended%s", why, extra={FIELDS: figures(exporter.statistics())})
    return UNACKNOWLEDGED if left else 0


@contextmanager
def _signals(stop: Callable[[], object]) -> Iterator[list[str]]:
    """Stop the export at SIGTERM or Ctrl-C, and restore the default action for the next signal; ignore SIGHUP."""
    received: list[str] = []
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]

    def handle(number: int, frame: object) -> None:  # noqa: ARG001
        received.append(signal.Signals(number).name)
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        stop()

    def ignore(number: int, frame: object) -> None:  # noqa: ARG001
        LOGGER.info("SIGHUP is ignored: restart the export to apply a changed configuration")

    handlers: dict[int, Any] = dict.fromkeys(numbers, handle)
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = ignore
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def log_setup(stream: TextIO, *, logs: str, shared: bool = False) -> Iterator[StatusLine | None]:
    """Set up the log: text with a status line on a terminal, else JSON lines.

    Args:
        stream: The output.
        logs: ``auto``, ``text`` or ``json``.
        shared: Whether records go to the same terminal, which leaves no place for a status line.

    Yields:
        The status line, if there is one.
    """
    terminal = is_terminal(stream)
    as_json = logs == "json" or (logs == "auto" and not terminal)
    line = StatusLine(stream) if terminal and not as_json and not shared else None
    with logging_to(line or stream, as_json=as_json):
        yield line


def run_with_logs(parts: Parts, *, logs: str = "auto", shared: bool = False, stream: TextIO | None = None) -> int:
    """Run an export as `run_export` does, with a log and its progress.

    Args:
        parts: The export.
        logs: ``auto``, ``text`` or ``json``.
        shared: Whether records go to the terminal of the log.
        stream: The output of the log; standard error by default.
    """
    target = sys.stderr if stream is None else stream
    with (
        log_setup(target, logs=logs, shared=shared) as line,
        Progress(parts.exporter.statistics, line),
    ):
        return run_export(parts)


def status(statistics: ExportStatistics, rate: float) -> str:
    """The text of the status line; ``rate`` is in records read per second."""
    read = sum(stream.read for stream in statistics.streams)
    gaps = sum(stream.gaps for stream in statistics.streams)
    parts = [f"{statistics.state}: {read:,} read, {rate:,.0f}/s", *map(_sink, statistics.destinations)]
    return printable(KNOWN.clean(" | ".join([*parts, f"{gaps} gaps"] if gaps else parts)))


def _sink(sink: DestinationStatistics) -> str:
    text = f"{sink.name}: {sink.written:,} written, {sink.waiting:,} waiting"
    lost = sink.dropped + sink.refused
    text += f", {sink.dead_lettered:,} dead letters" if sink.dead_lettered else ""
    text += f", {lost:,} lost" if lost else ""
    return text + (f", failing: {sink.last_error}" if sink.failing else "")


def figures(statistics: ExportStatistics) -> dict[str, Any]:
    """The statistics of a log line."""
    return {
        "state": statistics.state,
        "read": sum(stream.read for stream in statistics.streams),
        "gaps": sum(stream.gaps for stream in statistics.streams),
        "sinks": {
            sink.name: {
                "written": sink.written,
                "waiting": sink.waiting,
                "retries": sink.retries,
                "dead_letters": sink.dead_lettered,
                "lost": sink.dropped + sink.refused,
            }
            for sink in statistics.destinations
        },
    }


class Progress:
    """Shows the progress of an export in a thread of its own. A context manager.

    Args:
        statistics: Returns the statistics of the export.
        line: The status line to redraw; None to log the statistics once a minute.
        logger: The logger.
    """

    def __init__(
        self,
        statistics: Callable[[], ExportStatistics],
        line: StatusLine | None,
        logger: logging.Logger = LOGGER,
    ) -> None:
        """Start nothing yet."""
        self._statistics = statistics
        self._line = line
        self._logger = logger
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kevents-progress", daemon=True)

    def __enter__(self) -> Progress:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the thread, and remove the status line."""
        self._ended.set()
        self._thread.join(_JOIN_TIMEOUT)
        if self._line is not None:
            self._line.show("")

    def _run(self) -> None:
        last, read = monotonic(), 0
        while not self._ended.wait(_LOG_PERIOD if self._line is None else _REDRAW_PERIOD):
            statistics = self._statistics()
            if self._line is None:
                self._logger.info("progress", extra={FIELDS: figures(statistics)})
                continue
            now, total = monotonic(), sum(stream.read for stream in statistics.streams)
            self._line.show(status(statistics, (total - read) / max(now - last, 0.001)))
            last, read = now, total
