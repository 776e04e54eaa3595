"""The command ``kevents export``: runs an export until it is told to end, and ends it inside the grace period."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from kevents.export._operate.logs import FIELDS, LOGGER, is_terminal, logging_to
from kevents.export._operate.status import Progress, StatusLine, figures

if TYPE_CHECKING:
    from kevents.export._operate.build import Parts

LEFT: Final = 1
_SIGNALS: Final = ("SIGTERM", "SIGINT")


def run_export(parts: Parts) -> int:
    """Run an export until SIGTERM or Ctrl-C; a second one ends it at once, which loses nothing.

    Args:
        parts: What runs.

    Returns:
        0; 1 if not everything that was read was acknowledged in time: the next run reads it again.

    Raises:
        Exception: What the export raised.
    """
    exporter = parts.exporter
    with ExitStack() as stack:
        if parts.health is not None:
            stack.enter_context(parts.health)
            LOGGER.info("metrics and probes at %s", parts.health.address)
        heard = stack.enter_context(_signals(exporter.stop))
        LOGGER.info("the export begins")
        try:
            left = exporter.run()
        finally:
            _say_end(exporter.statistics(), heard)
    return LEFT if left else 0


def _say_end(statistics: Any, heard: list[str]) -> None:  # noqa: ANN401
    why = f" after {heard[0]}" if heard else ""
    LOGGER.info("the export has ended%s", why, extra={FIELDS: figures(statistics)})


@contextmanager
def _signals(stop: Any) -> Iterator[list[str]]:  # noqa: ANN401
    """Let SIGTERM and Ctrl-C stop the export, once: a second one does what it does to any program."""
    heard: list[str] = []
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]

    def handle(number: int, frame: object) -> None:  # noqa: ARG001
        heard.append(signal.Signals(number).name)
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shown(stream: TextIO, *, logs: str, shared: bool = False) -> Iterator[StatusLine | None]:
    """Let the process log: for a person on a terminal with a status line, else as JSON lines.

    Args:
        stream: Where to.
        logs: ``auto``, ``text`` or ``json``.
        shared: Whether records go to the same terminal: no status line then.

    Yields:
        The status line, if there is one.
    """
    terminal = is_terminal(stream)
    as_json = logs == "json" or (logs == "auto" and not terminal)
    line = StatusLine(stream) if terminal and not as_json and not shared else None
    with logging_to(line or stream, as_json=as_json):
        yield line


def exported(parts: Parts, *, logs: str = "auto", shared: bool = False, stream: TextIO | None = None) -> int:
    """Run an export with logs and progress as `run_export` does.

    Args:
        parts: What runs.
        logs: ``auto``, ``text`` or ``json``.
        shared: Whether records go to the terminal that the logs go to.
        stream: Where logs go; the standard error by default.
    """
    target = sys.stderr if stream is None else stream
    with (
        shown(target, logs=logs, shared=shared) as line,
        Progress(parts.exporter.statistics, line),
    ):
        return run_export(parts)
