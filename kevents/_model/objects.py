"""What travels: events, their sources and references, as the API server wants them.

Values are built once and never changed afterwards; every change is a new value. ``Final`` makes a type checker
hold that; the classes are plain and slotted because one of them is built for every recorded event.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from kevents._model.wire import (
    ELLIPSIS,
    clean,
    clean_texts,
    event_name,
    field_text,
    field_texts,
    format_time,
    parse_time,
)

if TYPE_CHECKING:
    from typing_extensions import Self

EVENT_TYPE_NORMAL: Final = "Normal"
EVENT_TYPE_WARNING: Final = "Warning"

Json = dict[str, Any]
NO_TEXTS: Final[Mapping[str, str]] = MappingProxyType({})

_REFERENCE_FIELDS: Final = {
    "kind": "kind", "api_version": "apiVersion", "namespace": "namespace", "name": "name", "uid": "uid",
    "resource_version": "resourceVersion", "field_path": "fieldPath",
}  # fmt: skip


class ObjectReference:
    """Which object an event is about (client-go: ``ObjectReference``).

    Args:
        kind: ``Pod``.
        api_version: ``v1``, ``apps/v1``.
        namespace: Empty for a cluster-scoped object.
        name: The object's name.
        uid: The object's uid; empty when unknown, never invented.
        resource_version: As the caller saw it.
        field_path: Which part of the object, as in ``spec.containers{app}``.

    Attributes:
        identity: Which object, whatever its version and part: what the correlator's keys are made of.

    .. versionadded:: 0.1
    """

    __slots__ = ("api_version", "field_path", "identity", "kind", "name", "namespace", "resource_version", "uid")

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
        """Make a reference; nothing is looked up."""
        self.kind: Final = kind
        self.api_version: Final = api_version
        self.namespace: Final = namespace
        self.name: Final = name
        self.uid: Final = uid
        self.resource_version: Final = resource_version
        self.field_path: Final = field_path
        self.identity: Final = (kind, namespace, name, uid, api_version)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ObjectReference:
        """Read a reference as the API server writes it; unknown keys are ignored, missing ones empty."""
        return cls(**{field: field_text(body.get(key)) for field, key in _REFERENCE_FIELDS.items()})

    def to_dict(self) -> Json:
        """The reference as the API server wants it, without empty fields."""
        values = {key: getattr(self, field) for field, key in _REFERENCE_FIELDS.items()}
        return {key: clean(value) for key, value in values.items() if value}

    def _values(self) -> tuple[object, ...]:
        return (*self.identity, self.resource_version, self.field_path)

    def __eq__(self, other: object) -> bool:
        """Equal in every field."""
        return self._values() == other._values() if isinstance(other, ObjectReference) else NotImplemented

    def __hash__(self) -> int:
        """Hash of every field."""
        return hash(self._values())

    def __repr__(self) -> str:
        """The fields that are set."""
        values = {field: getattr(self, field) for field in _REFERENCE_FIELDS}
        return f"ObjectReference({', '.join(f'{field}={value!r}' for field, value in values.items() if value)})"

    def __str__(self) -> str:
        """``v1/Pod prod/web-0``: for log lines."""
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.api_version or '?'}/{self.kind or '?'} {where}"


class EventSource:
    """Who records: the component, and the host it runs on (client-go: ``EventSource``).

    Args:
        component: ``backup-operator``.
        host: The node, or the pod (see :func:`kevents.default_host`); may be empty.

    Attributes:
        identity: Component and host, as the correlator's keys want them.

    .. versionadded:: 0.1
    """

    __slots__ = ("component", "host", "identity")

    def __init__(self, component: str = "", host: str = "") -> None:
        """Make a source."""
        self.component: Final = component
        self.host: Final = host
        self.identity: Final = (component, host)

    def to_dict(self) -> Json:
        """The source as the API server wants it, without empty fields."""
        values = {"component": self.component, "host": self.host}
        return {key: clean(value) for key, value in values.items() if value}

    def __eq__(self, other: object) -> bool:
        """Equal in both fields."""
        return self.identity == other.identity if isinstance(other, EventSource) else NotImplemented

    def __hash__(self) -> int:
        """Hash of both fields."""
        return hash(self.identity)

    def __repr__(self) -> str:
        """The two fields."""
        return f"EventSource(component={self.component!r}, host={self.host!r})"


class Event:
    """What happened to which object: one occurrence, or several counted together (client-go: ``Event``).

    Args:
        reference: The object it happened to.
        type: ``Normal`` or ``Warning``.
        reason: Why, in one CamelCase word by convention.
        message: What happened, for people.
        source: Who says so.
        time: When it last happened, in nanoseconds since the epoch.
        serial: Strictly growing in the process; the event's name is made from it.
        annotations: Of the API object.
        labels: Of the API object.
        count: How many occurrences it stands for.
        first_time: When it first happened, in nanoseconds; ``time`` if not given.
        name: The API object's name, if it is not to be made from reference and serial.

    .. versionadded:: 0.1
    """

    __slots__ = (
        "_name", "annotations", "count", "first_time", "labels", "message",
        "reason", "reference", "serial", "source", "time", "type",
    )  # fmt: skip
    _more: ClassVar[tuple[str, ...]] = ()
    """The fields that a subclass adds."""

    def __init__(  # by position, too: in the path of every recorded event, keywords cost more than all the rest
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
    ) -> None:
        """Make an event; nothing is sent."""
        self.reference: Final = reference
        self.type: Final = type
        self.reason: Final = reason
        self.message: Final = message
        self.source: Final = source
        self.time: Final = time
        self.serial = serial  # given at the moment of publishing; from then on it never changes
        self.annotations: Final = annotations
        self.labels: Final = labels
        self.count: Final = count
        self.first_time: Final = time if first_time is None else first_time
        self._name = name

    @property
    def name(self) -> str:
        """The API object's name: the one given, else made from the reference's name and the serial."""
        if not self._name:
            # A pure function of what never changes: two threads that come here at once compute the same.
            self._name = event_name(self.reference.name, self.serial)
        return self._name

    @property
    def namespace(self) -> str:
        """Where the API object lives: the reference's namespace, ``default`` for cluster-scoped objects."""
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
        """The same event with another message, or as the ``count``-th occurrence of one known under ``name``."""
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
        )
        for field in self._more:
            setattr(event, field, getattr(self, field))
        return event

    def to_dict(self) -> Json:
        """The core/v1 body of a create, as plain values (client-go: ``makeEvent``)."""
        metadata: Json = {"name": self.name, "namespace": clean(self.namespace)}
        if self.annotations:
            metadata["annotations"] = clean_texts(self.annotations)
        if self.labels:
            metadata["labels"] = clean_texts(self.labels)
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
            "reportingComponent": clean(self.source.component),
            "reportingInstance": clean(self.source.host),
        }

    def to_patch(self) -> Json:
        """The strategic-merge patch that brings a known event up to this occurrence.

        client-go: the two-way merge of the event against itself with count 0, ``lastTimestamp`` at the epoch
        and no message; so it holds count, ``lastTimestamp`` and, unless empty, the message.
        """
        patch: Json = {"count": self.count, "lastTimestamp": format_time(self.time)}
        if self.message:
            patch["message"] = clean(self.message)
        return patch

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Read an event as the API server writes it, in the API of its class.

        Args:
            body: The object as a dictionary; missing fields are empty, a missing count is 1.

        Raises:
            ValueError: If a timestamp is no RFC 3339 time with a zone, or the body is none of an event.
        """
        try:
            return cls._read(body)
        except (AttributeError, TypeError, OverflowError) as error:
            raise ValueError(f"no event as the API server writes it: {error}") from error

    @classmethod
    def _read(cls, body: Mapping[str, Any]) -> Self:
        metadata: Mapping[str, Any] = body.get("metadata") or {}
        source: Mapping[str, Any] = body.get("source") or {}
        first = body.get("firstTimestamp") or body.get("eventTime")
        last = body.get("lastTimestamp") or first
        time = parse_time(last) if last else 0
        return cls(
            reference=ObjectReference.from_dict(body.get("involvedObject") or {}),
            type=field_text(body.get("type")),
            reason=field_text(body.get("reason")),
            message=field_text(body.get("message")),
            source=EventSource(
                field_text(source.get("component") or body.get("reportingComponent")),
                field_text(source.get("host") or body.get("reportingInstance")),
            ),
            time=time,
            serial=time,
            annotations=field_texts(metadata.get("annotations")),
            labels=field_texts(metadata.get("labels")),
            count=int(body.get("count") or 1),
            first_time=parse_time(first) if first else time,
            name=field_text(metadata.get("name")),
        )

    def __repr__(self) -> str:
        """What a person wants to see of it, without the message's whole length."""
        message = self.message if len(self.message) <= 80 else self.message[:77] + ELLIPSIS  # noqa: PLR2004
        return f"<Event {self.reference} {self.type} {self.reason} x{self.count} {message!r}>"
