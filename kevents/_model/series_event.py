"""Events of events.k8s.io/v1: a single occurrence or a series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kevents._model.objects import NO_TEXTS, Event, EventSource, Json, ObjectReference
from kevents._model.wire import EVENTS_GROUP, clean, format_micro_time

SERIES_BEGINS: Final = 2
"""The smallest count of a series that the API server accepts."""

if TYPE_CHECKING:
    from typing_extensions import Self


class SeriesEvent(Event):
    """An event of events.k8s.io/v1: one occurrence, or a series of them (client-go: ``Event``).

    Its ``regarding`` and ``note`` are the ``reference`` and ``message`` of :class:`~kevents.Event`, and its reporting
    controller and instance are the ``source``.

    Args:
        regarding: The object the event is about.
        type: ``Normal`` or ``Warning``.
        reason: One CamelCase word by convention.
        action: The action taken or failed, one CamelCase word by convention.
        note: The text for people.
        source: The reporting controller as component, and its instance as host.
        time: The last occurrence, in nanoseconds since the epoch.
        serial: Strictly increasing in the process. The event's name contains it.
        related: A second object involved.
        annotations: Annotations of the API object.
        labels: Labels of the API object.
        count: The number of occurrences.
        first_time: The first occurrence, in nanoseconds since the epoch; default ``time``.
        name: The API object's name; default a name made from reference and serial.

    .. versionadded:: 0.1
    """

    __slots__ = ()

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
        """Build an event; nothing is sent."""
        super().__init__(
            regarding,
            type,
            reason,
            note,
            source,
            time,
            serial,
            annotations,
            labels,
            count,
            first_time,
            name,
            action,
            related,
        )

    @property
    def regarding(self) -> ObjectReference:
        """The object the event is about."""
        return self.reference

    @property
    def note(self) -> str:
        """The text for people."""
        return self.message

    @property
    def reporting_controller(self) -> str:
        """The controller that recorded the event."""
        return self.source.component

    @property
    def reporting_instance(self) -> str:
        """The instance of that controller."""
        return self.source.host

    def to_dict(self) -> Json:
        """Return the events.k8s.io/v1 body of a create request (client-go: ``makeEvent``)."""
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
        """Return the strategic-merge patch of the series (client-go: ``createPatchBytesForSeries``).

        events.k8s.io allows no other field to change. The patch of a single occurrence is empty, because the server
        refuses a series of fewer than two.
        """
        return self._series() or {"metadata": {}}

    def _series(self) -> Json:
        if self.count < SERIES_BEGINS:
            return {}
        return {"series": {"count": self.count, "lastObservedTime": format_micro_time(self.time)}}

    @classmethod
    def _from_fields(cls, fields: Json) -> Self:
        return cls(regarding=fields.pop("reference"), note=fields.pop("message"), **fields)
