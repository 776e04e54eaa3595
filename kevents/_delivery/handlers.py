"""Handlers: the consumers of a watcher's events. The base class, a handler that calls a function, and log lines.

The handlers that write events to an API server are the sender pools, in ``dispatcher.py`` and ``sender_tasks.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kevents._model.objects import SeriesEvent
from kevents._model.wire import printable
from kevents._runtime.log import in_kevents

if TYPE_CHECKING:
    import logging

    from kevents._model.objects import Event
    from kevents._model.statistics import SinkStatistics


@dataclass(frozen=True, slots=True)
class Handled:
    """The result of a batch: the events that failed with their errors, and whether the whole batch came too late."""

    failed: Sequence[tuple[Event, BaseException]] = ()
    too_late: bool = False


ALL_HANDLED = Handled()


class Handler:
    """Base class. A handler overrides :meth:`handle`, and the methods that matter for it.

    The watcher's worker thread calls :meth:`handle` and :meth:`end_input`. Any thread may call the other methods.
    """

    batch_size = 1  # the most events of one call of handle()
    sink: object | None = None  # a broadcaster starts a sink only once

    def start(self) -> None:
        """The first event arrived. Start threads here, because none can be started at interpreter exit. Does not block.

        Raises:
            RuntimeError: If no thread can be started.
        """

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Process a batch of events. Never raises."""
        raise NotImplementedError

    def flush_now(self) -> None:
        """Try pending writes now instead of at their retry time. Does not block."""

    def wake(self) -> None:
        """Let threads that wait in :meth:`flush` check ``given_up`` again."""

    def flush(self, deadline: float | None, given_up: Callable[[], bool] = bool) -> bool:  # noqa: ARG002
        """Wait until all handled events have ended, or until ``given_up``. False at the deadline."""
        return True

    def begin_stop(self, deadline: float) -> None:
        """Hurry: the handler stops at the deadline. Does not block."""

    def end_input(self) -> None:
        """The last batch was handled."""

    def stop(self, deadline: float) -> int:  # noqa: ARG002
        """Wait until all handled events have ended, and drop the rest at the deadline. Returns their number."""
        return 0

    def after_fork(self) -> None:
        """In a forked child: start afresh."""

    def accepted(self) -> int | None:
        """The number of events that the handler counts itself. None if it counts none."""
        return None

    def owns_this_thread(self) -> bool:
        """True if the calling thread belongs to the handler, so that it must not wait for the handler."""
        return False

    def statistics(self) -> SinkStatistics | None:
        """The statistics of the sink behind the handler, if any."""
        return None


class CallHandler(Handler):
    """Calls a function with each event. If the function raises, only that event fails, whatever it raises."""

    def __init__(self, function: Callable[[Event], object]) -> None:
        self._function = function

    def handle(self, batch: Sequence[Event]) -> Handled:
        failed = []
        for event in batch:
            try:
                self._function(event)
            except BaseException as error:  # noqa: BLE001 - SystemExit in a handler must not end the watcher either
                failed.append((event, error))
        return Handled(failed) if failed else ALL_HANDLED


def log_plainly(logf: Callable[..., object], event: Event) -> None:
    """Log an event through a printf-like function (client-go: ``StartLogging``)."""
    action = f"action: '{printable(event.action)}' " if event.action else ""
    with in_kevents():
        logf(
            "Event(%s): type: '%s' reason: '%s' %s%s",
            printable(repr(event.reference)),
            event.type,
            printable(event.reason),
            action,
            printable(event.message),
        )


def log_structured(logger: logging.Logger, level: int, event: Event) -> None:
    """Log an event as ``Event occurred object=prod/web-0 ...`` (client-go: ``StartStructuredLogging``).

    The fields are in the text for plain formatters, and in the record's ``extra`` for structured ones.
    """
    reference = event.reference
    fields = {
        "object": f"{reference.namespace}/{reference.name}" if reference.namespace else reference.name,
        "field_path": reference.field_path,
        "kind": reference.kind,
        "api_version": reference.api_version,
        "type": event.type,
        "reason": event.reason,
        "action": event.action,
        # "message" is an attribute of every log record.
        "note" if isinstance(event, SeriesEvent) else "event_message": event.message,
    }
    extra = {name: printable(value) for name, value in fields.items()}
    shown = [name for name in ("object", "kind", "type", "reason", "action") if extra[name]]
    text = " ".join(["Event occurred", *(f"{name}=%s" for name in shown), 'message="%s"'])
    with in_kevents():
        logger.log(level, text, *(extra[name] for name in shown), printable(event.message), extra=extra)
