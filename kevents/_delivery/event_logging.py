"""Events as log lines: what the logging watchers do with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kevents._model.series_event import SeriesEvent
from kevents._model.wire import printable
from kevents._runtime.log import in_kevents

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from kevents._model.objects import Event


def log_plainly(logf: Callable[..., object], event: Event) -> None:
    """One line through a printf-like function (client-go: ``StartLogging``)."""
    action = f"action: '{printable(event.action)}' " if isinstance(event, SeriesEvent) else ""
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
    """One record with the event's fields as ``extra`` (client-go: ``StartStructuredLogging``)."""
    reference = event.reference
    fields = {
        "object": f"{reference.namespace}/{reference.name}" if reference.namespace else reference.name,
        "field_path": reference.field_path,
        "kind": reference.kind,
        "api_version": reference.api_version,
        "type": event.type,
        "reason": event.reason,
    }
    if isinstance(event, SeriesEvent):
        fields |= {"action": event.action, "note": event.note}
    else:
        fields["event_message"] = event.message  # "message" is the record's own
    with in_kevents():
        logger.log(level, "Event occurred", extra={name: printable(value) for name, value in fields.items()})
