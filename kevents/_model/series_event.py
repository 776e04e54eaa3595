"""What travels through events.k8s.io/v1: an event that stands for itself, or for a series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from kevents._model.objects import NO_TEXTS, Event, EventSource, Json, ObjectReference
from kevents._model.wire import EVENTS_GROUP, clean, format_micro_time

SERIES_BEGINS: Final = 2
"""The smallest count of a series that the API server takes."""

if TYPE_CHECKING:
    import logging

    from typing_extensions import Self

    from kevents._model.statistics import DropReason
    from kevents.exceptions import InvalidEventError


class SeriesEvent(Event):
    """What happened to which object, as events.k8s.io/v1 has it: one occurrence, or a series (client-go: ``Event``).

    Also an :class:`~kevents.Event`: its ``reference`` and ``message`` are called ``regarding`` and ``note`` here, and
    its ``source`` is the reporting controller and instance.

    Args:
        regarding: The object it happened to.
        type: ``Normal`` or ``Warning``.
        reason: Why, in one CamelCase word by convention.
        action: What was done or failed, in one CamelCase word by convention.
        note: What happened, for people.
        source: The reporting controller as component, and its instance as host.
        time: When it last happened, in nanoseconds since the epoch.
        serial: Strictly growing in the process; the event's name is made from it.
        related: A second object that has to do with it.
        annotations: Of the API object.
        labels: Of the API object.
        count: How many occurrences it stands for.
        first_time: When it first happened, in nanoseconds; ``time`` if not given.
        name: The API object's name, if it is not to be made from reference and serial.

    .. versionadded:: 0.1
    """

    __slots__ = _more = ("action", "related")

    def __init__(
        self,
        *,
        regarding: ObjectReference,
        type: str,  # noqa: A002 - the API's name
        reason: str,
        action: str,
        note: str,
        source: EventSource,
        time: int,
        serial: int,
        related: ObjectReference | None = None,
        annotations: Mapping[str, str] = NO_TEXTS,
        labels: Mapping[str, str] = NO_TEXTS,
        count: int = 1,
        first_time: int | None = None,
        name: str = "",
    ) -> None:
        """Make an event; nothing is sent."""
        super().__init__(
            reference=regarding,
            type=type,
            reason=reason,
            message=note,
            source=source,
            time=time,
            serial=serial,
            annotations=annotations,
            labels=labels,
            count=count,
            first_time=first_time,
            name=name,
        )
        self.action: Final = action
        self.related: Final = related

    @property
    def regarding(self) -> ObjectReference:
        """The object it happened to."""
        return self.reference

    @property
    def note(self) -> str:
        """What happened, for people."""
        return self.message

    @property
    def reporting_controller(self) -> str:
        """Who says so."""
        return self.source.component

    @property
    def reporting_instance(self) -> str:
        """Which of its processes."""
        return self.source.host

    def to_dict(self) -> Json:
        """The events.k8s.io/v1 body of a create, as plain values (client-go: ``makeEvent``)."""
        core = super().to_dict()
        body: Json = {
            "apiVersion": f"{EVENTS_GROUP}/v1",
            "kind": "Event",
            "metadata": core["metadata"],
            "eventTime": format_micro_time(self.first_time),
            "reportingController": core["reportingComponent"],
            "reportingInstance": core["reportingInstance"],
            "action": clean(self.action),
            "reason": core["reason"],
            "regarding": core["involvedObject"],
            "note": core["message"],
            "type": self.type,
        }
        if self.related is not None:
            body["related"] = self.related.to_dict()
        return body | self._series()

    def to_patch(self) -> Json:
        """The strategic-merge patch that brings the event up to this count (client-go: ``createPatchBytesForSeries``).

        Nothing else may change in events.k8s.io. Of a single occurrence there is nothing to say: the server refuses a
        series of fewer than two.
        """
        return self._series() or {"metadata": {}}

    def _series(self) -> Json:
        if self.count < SERIES_BEGINS:
            return {}
        return {"series": {"count": self.count, "lastObservedTime": format_micro_time(self.time)}}

    @classmethod
    def _read(cls, body: Mapping[str, Any]) -> Self:
        series: Mapping[str, Any] = body.get("series") or {}
        core = {"involvedObject": "regarding", "message": "note", "reportingComponent": "reportingController"}
        times = {
            "firstTimestamp": body.get("eventTime") or body.get("deprecatedFirstTimestamp"),
            "lastTimestamp": series.get("lastObservedTime") or body.get("deprecatedLastTimestamp"),
            "count": series.get("count") or body.get("deprecatedCount"),
            "source": body.get("deprecatedSource"),
        }
        event = Event.from_dict({**body, **{name: body.get(theirs) for name, theirs in core.items()}, **times})
        related = body.get("related")
        return cls(
            regarding=event.reference,
            type=event.type,
            reason=event.reason,
            action=str(body.get("action") or ""),
            note=event.message,
            source=event.source,
            time=event.time,
            serial=event.serial,
            related=ObjectReference.from_dict(related) if related else None,
            annotations=event.annotations,
            labels=event.labels,
            count=event.count,
            first_time=event.first_time,
            name=event.name,
        )


class Publishing(Protocol):
    """Where a recorder takes its events: the inside of a broadcaster, or of a fake recorder."""

    def now(self) -> int:
        """Nanoseconds since the epoch."""

    def offer(self, event: SeriesEvent, /) -> None:
        """Take an event."""

    def refuse(self, reason: DropReason, error: InvalidEventError, logger: logging.Logger, /) -> None:
        """Take what cannot become one; may raise it."""

    def doubt(self, error: InvalidEventError, logger: logging.Logger, /) -> None:
        """Take what an event can do without; may raise it."""
