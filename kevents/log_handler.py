"""Log records as events: a handler for ``logging`` that records what is logged about an object.

::

    import logging

    from kevents.log_handler import EventLogHandler

    logger = logging.getLogger("backup")
    logger.addHandler(EventLogHandler("backup-operator"))
    logger.warning("the bucket is gone", extra={"k8s_object": pod, "reason": "BackupFailed"})
"""

from __future__ import annotations

import logging

from kevents._broadcast.default import get_recorder
from kevents._broadcast.recorder import BaseRecorder, Recorder
from kevents._model.wire import format_error
from kevents._runtime.log import LOGGER

__all__ = ["EventLogHandler"]


class EventLogHandler(logging.Handler):
    """Records an event for each log record that names an object. Other records pass unchanged.

    The object is in the record's attribute ``k8s_object``, set by ``extra=``; kopf's object loggers set ``k8s_ref``,
    which is read as well. The attribute ``reason`` is the event's reason. With structlog, end the processors with
    ``structlog.stdlib.render_to_log_kwargs``, and pass both as keyword arguments.

    Records of kevents' own loggers are left out, so that no event causes another one. Its warnings still reach standard
    error if there is no other handler for them. A record's error (``exc_info``) is added to the message without its
    traceback.

    Args:
        recorder: A recorder of either API, or a component's name for :func:`kevents.get_recorder`.
        level: Number or name of a level. Records below it are left out. Levels below ``WARNING`` become ``Normal``
            events.
        reason: The reason of records that have none.

    Raises:
        TypeError: If ``recorder`` is neither.
    """

    def __init__(
        self, recorder: Recorder | BaseRecorder | str, level: int | str = logging.WARNING, *, reason: str = "Logging"
    ) -> None:
        super().__init__(level)
        if isinstance(recorder, str):
            recorder = get_recorder(recorder)
        if not isinstance(recorder, Recorder | BaseRecorder):
            raise TypeError(f"recorder must be a recorder or a component's name, not {recorder!r}")
        self._recorder = recorder
        self._reason = reason

    def emit(self, record: logging.LogRecord) -> None:
        """Record an event about the record's object, if it names one."""
        if f"{record.name}.".startswith(f"{LOGGER.name}."):
            if logging.lastResort is not None and record.levelno >= logging.lastResort.level and _is_alone(record.name):
                logging.lastResort.handle(record)  # as without this handler
            return
        about = getattr(record, "k8s_object", None)
        if about is None:
            about = getattr(record, "k8s_ref", None)
        if about is None or getattr(record, "k8s_skip", False):
            return
        recorder = self._recorder
        record_event = recorder.warning if record.levelno >= logging.WARNING else recorder.normal
        reason = getattr(record, "reason", None) or self._reason
        try:
            record_event(about, reason, _Message(record))
        except Exception:  # noqa: BLE001 - a strict recorder raises; logging reports it
            self.handleError(record)


def _is_alone(name: str) -> bool:
    """True if the records of a logger have no handler of another kind."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if not all(isinstance(handler, EventLogHandler) for handler in logger.handlers):
            return False
        logger = logger.parent if logger.propagate else None
    return True


class _Message:
    """The message of a log record with its error; formatted where the recorder catches a failure."""

    def __init__(self, record: logging.LogRecord) -> None:
        self._record = record

    def __str__(self) -> str:
        error = self._record.exc_info[1] if self._record.exc_info else None
        message = self._record.getMessage()
        return message if error is None else f"{message} {format_error(error)}"
