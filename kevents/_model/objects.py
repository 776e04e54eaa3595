"""Events, their sources and object references, with their core/v1 format.

Values never change after they are built: every change makes a new value, and ``Final`` makes the type checker enforce
that. The classes are plain and slotted because each recorded event builds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final, Literal

from kevents._model.wire import (
    ELLIPSIS,
    EVENTS_GROUP,
    NO_TEXTS,
    clean,
    clean_texts,
    event_name,
    field_text,
    field_texts,
    format_micro_time,
    format_time,
    parse_time,
    printable,
    read_field,
)

if TYPE_CHECKING:
    from typing_extensions import Self

EVENT_TYPE_NORMAL: Final = "Normal"
EVENT_TYPE_WARNING: Final = "Warning"


class EventType(Enum):
    """The types of an event, for callers that prefer an enum to ``"Normal"`` and ``"Warning"``."""

    NORMAL = "Normal"
    WARNING = "Warning"


AnyEventType = Literal["Normal", "Warning"] | EventType
"""Event types as a type checker accepts them."""

Json = dict[str, Any]
_EVENT_BYTES: Final = 500

_REFERENCE_FIELDS: Final = {
    "kind": "kind", "api_version": "apiVersion", "namespace": "namespace", "name": "name", "uid": "uid",
    "resource_version": "resourceVersion", "field_path": "fieldPath",
}  # fmt: skip


class ObjectReference:
    """Reference to the object an event is about (client-go: ``ObjectReference``).

    Args:
        kind: ``Pod``.
        api_version: ``v1``, ``apps/v1``.
        namespace: Empty for a cluster-scoped object.
        name: The object's name.
        uid: The object's uid. Empty when unknown, never invented.
        resource_version: The version the caller read.
        field_path: The part of the object, as in ``spec.containers{app}``.

    Attributes:
        identity: The fields that identify the object, without version and part. Correlation keys contain it.
        checked: True once :func:`~kevents.get_reference` has found it valid.
    """

    __slots__ = (
        "api_version", "checked", "field_path", "identity", "kind", "name", "namespace", "resource_version", "uid",
    )  # fmt: skip

    def __init__(
        self,
        *,
        kind: str = "",
        api_version: str = "",
        namespace: str = "",
        name: str = "",
        uid: str = "",
        resource_version: str = "",
        field_path: str = "",
    ) -> None:
        self.kind: Final = kind
        self.api_version: Final = api_version
        self.namespace: Final = namespace
        self.name: Final = name
        self.uid: Final = uid
        self.resource_version: Final = resource_version
        self.field_path: Final = field_path
        self.identity: Final = (kind, namespace, name, uid, api_version)
        self.checked = False

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ObjectReference:
        """Read a reference in the API's format, also in snake_case. Unknown keys are ignored, missing ones empty."""
        return cls(**{field: field_text(read_field(body, key)) for field, key in _REFERENCE_FIELDS.items()})

    def to_dict(self) -> Json:
        """Return the reference in the API's format, without empty fields."""
        values = {key: getattr(self, field) for field, key in _REFERENCE_FIELDS.items()}
        return {key: clean(value) for key, value in values.items() if value}

    def _values(self) -> tuple[object, ...]:
        return (*self.identity, self.resource_version, self.field_path)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, ObjectReference) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        values = {field: getattr(self, field) for field in _REFERENCE_FIELDS}
        return f"ObjectReference({', '.join(f'{field}={value!r}' for field, value in values.items() if value)})"

    def __str__(self) -> str:
        """``v1/Pod prod/web-0``, for log lines."""
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.api_version or '?'}/{self.kind or '?'} {where}"


class EventSource:
    """The component that records events, and its host (client-go: ``EventSource``).

    Args:
        component: ``backup-operator``.
        host: The node or the pod (see :func:`kevents.default_host`); may be empty.

    Attributes:
        identity: Component and host. Correlation keys contain it.
    """

    __slots__ = ("component", "host", "identity")

    def __init__(self, component: str = "", host: str = "") -> None:
        self.component: Final = component
        self.host: Final = host
        self.identity: Final = (component, host)

    def to_dict(self) -> Json:
        """Return the source in the API's format, without empty fields."""
        values = {"component": self.component, "host": self.host}
        return {key: clean(value) for key, value in values.items() if value}

    def __eq__(self, other: object) -> bool:
        return self.identity == other.identity if isinstance(other, EventSource) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"EventSource(component={self.component!r}, host={self.host!r})"


QUEUE_BYTES: Final = 64 << 20
"""Default for the bytes of memory of the events in a queue."""


def memory_of(event: Event) -> int:
    """The bytes that an event takes in memory, at most: texts that several events share are counted for each."""
    size = _EVENT_BYTES + getsizeof(event.message) + getsizeof(event.reason)
    for texts in (event.annotations, event.labels):
        if texts:
            size += sum(getsizeof(key) + getsizeof(value) for key, value in texts.items())
    return size


class Event:
    """An event about an object: one occurrence, or several counted together (client-go: ``Event``).

    Args:
        reference: The object the event is about.
        type: ``Normal`` or ``Warning``.
        reason: One CamelCase word by convention.
        message: The text for people.
        source: The component that recorded it.
        time: The last occurrence, in nanoseconds since the epoch.
        serial: Unique in the process, and growing in each thread. The event's name contains it.
        annotations: Annotations of the API object.
        labels: Labels of the API object.
        count: The number of occurrences.
        first_time: The first occurrence, in nanoseconds since the epoch. Default ``time``.
        name: The API object's name. Default a name made from reference and serial.
        action: The action taken or failed, one CamelCase word by convention. No part of the event's identity.
        related: A second object involved. No part of the event's identity.
    """

    __slots__ = (
        "_name", "action", "annotations", "count", "first_time", "labels", "message",
        "reason", "reference", "related", "serial", "source", "time", "type",
    )  # fmt: skip

    def __init__(  # also positional: keywords would cost more than the rest of the constructor
        self,
        reference: ObjectReference,
        type: str,  # noqa: A002 - the API's name
        reason: str,
        message: str,
        source: EventSource,
        time: int,
        serial: int,
        annotations: Mapping[str, str] = NO_TEXTS,
        labels: Mapping[str, str] = NO_TEXTS,
        count: int = 1,
        first_time: int | None = None,
        name: str = "",
        action: str = "",
        related: ObjectReference | None = None,
    ) -> None:
        self.reference: Final = reference
        self.type: Final = type
        self.reason: Final = reason
        self.message: Final = message
        self.source: Final = source
        self.time: Final = time
        self.serial = serial  # set when the event is published; constant from then on
        self.annotations: Final = annotations
        self.labels: Final = labels
        self.count: Final = count
        self.first_time: Final = time if first_time is None else first_time
        self._name = name
        self.action: Final = action
        self.related: Final = related

    @property
    def name(self) -> str:
        """The API object's name: the given one, else made from the reference's name and the serial."""
        if not self._name:
            # No lock: two threads that enter at the same time compute the same name.
            self._name = event_name(self.reference.name, self.serial)
        return self._name

    @property
    def namespace(self) -> str:
        """Namespace of the API object: the reference's, or ``default`` for a cluster-scoped object."""
        return self.reference.namespace or "default"

    def replace(
        self,
        *,
        message: str | None = None,
        count: int | None = None,
        time: int | None = None,
        first_time: int | None = None,
        name: str | None = None,
    ) -> Self:
        """Return a copy with other values for the given fields."""
        event = object.__new__(type(self))
        Event.__init__(
            event,
            self.reference,
            self.type,
            self.reason,
            self.message if message is None else message,
            self.source,
            self.time if time is None else time,
            self.serial,
            self.annotations,
            self.labels,
            self.count if count is None else count,
            self.first_time if first_time is None else first_time,
            self._name if name is None else name,
            self.action,
            self.related,
        )
        return event

    def to_dict(self) -> Json:
        """Return the core/v1 body of a create request (client-go: ``makeEvent``)."""
        metadata: Json = {"name": self.name, "namespace": clean(self.namespace)}
        if self.annotations:
            metadata["annotations"] = clean_texts(self.annotations)
        if self.labels:
            metadata["labels"] = clean_texts(self.labels)
        optional: Json = {"action": clean(self.action)} if self.action else {}
        if self.related is not None:
            optional["related"] = self.related.to_dict()
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": metadata,
            "involvedObject": self.reference.to_dict(),
            "reason": clean(self.reason),
            "message": clean(self.message),
            "source": self.source.to_dict(),
            "firstTimestamp": format_time(self.first_time),
            "lastTimestamp": format_time(self.time),
            "count": self.count,
            "type": self.type,
            **optional,
            "reportingComponent": clean(self.source.component),
            "reportingInstance": clean(self.source.host),
        }

    def to_patch(self) -> Json:
        """Return the strategic-merge patch that updates the API object to this occurrence.

        It holds count, ``lastTimestamp`` and, unless empty, the message. client-go computes the same as the two-way
        merge of the event against itself with count 0, ``lastTimestamp`` at the epoch and no message.
        """
        patch: Json = {"count": self.count, "lastTimestamp": format_time(self.time)}
        if self.message:
            patch["message"] = clean(self.message)
        return patch

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Read an event in the format of core/v1 or events.k8s.io/v1, also as ``to_dict()`` of a client's model.

        Args:
            body: The object as a dictionary. Missing fields are empty, a missing count is 1. Count and last time of a
                ``series`` count before those beside it.

        Raises:
            ValueError: If a timestamp is not an RFC 3339 time with a zone, or the body is not an Event.
        """
        try:
            return cls._from_fields(_event_fields(body))
        except (AttributeError, TypeError, OverflowError) as error:
            raise ValueError(f"not an Event object of the API: {error}") from error

    @classmethod
    def _from_fields(cls, fields: Json) -> Self:
        return cls(**fields)

    def __repr__(self) -> str:
        message = self.message if len(self.message) <= 80 else self.message[:77] + ELLIPSIS  # noqa: PLR2004
        return f"<Event {self.reference} {self.type} {self.reason} x{self.count} {message!r}>"


def _event_fields(body: Mapping[str, Any]) -> Json:
    """The arguments of :class:`Event` for an object of either API. Raises ValueError."""
    api_version, kind = field_text(read_field(body, "apiVersion")), field_text(body.get("kind"))
    is_event = kind in {"", "Event"} and (api_version in {"", "v1"} or api_version.startswith(f"{EVENTS_GROUP}/"))
    if not is_event or "spec" in body or "status" in body:
        raise ValueError(f"not an Event object of the API: {printable(f'{api_version} {kind}'[:80])!r}")
    metadata: Mapping[str, Any] = body.get("metadata") or {}
    series: Mapping[str, Any] = body.get("series") or {}
    source: Mapping[str, Any] = read_field(body, "source", "deprecatedSource") or {}
    first = read_field(body, "eventTime", "firstTimestamp", "deprecatedFirstTimestamp")
    last = read_field(series, "lastObservedTime") or read_field(body, "lastTimestamp", "deprecatedLastTimestamp")
    time = parse_time(last or first) if last or first else 0
    related = body.get("related")
    return {
        "reference": ObjectReference.from_dict(read_field(body, "involvedObject", "regarding") or {}),
        "type": field_text(body.get("type")),
        "reason": field_text(body.get("reason")),
        "message": field_text(read_field(body, "message", "note")),
        "source": EventSource(
            field_text(source.get("component") or read_field(body, "reportingComponent", "reportingController")),
            field_text(source.get("host") or read_field(body, "reportingInstance")),
        ),
        "time": time,
        "serial": time,
        "annotations": field_texts(metadata.get("annotations")),
        "labels": field_texts(metadata.get("labels")),
        "count": int(series.get("count") or read_field(body, "count", "deprecatedCount") or 1),
        "first_time": parse_time(first) if first else time,
        "name": field_text(metadata.get("name")),
        "action": field_text(body.get("action")),
        "related": ObjectReference.from_dict(related) if related else None,
    }


SERIES_BEGINS: Final = 2
"""The smallest count of a series that the API server accepts."""


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
        serial: Unique in the process, and growing in each thread. The event's name contains it.
        related: A second object involved.
        annotations: Annotations of the API object.
        labels: Labels of the API object.
        count: The number of occurrences.
        first_time: The first occurrence, in nanoseconds since the epoch. Default ``time``.
        name: The API object's name. Default a name made from reference and serial.
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
