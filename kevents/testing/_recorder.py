"""A recorder that keeps what is recorded, for tests of code that records."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from kevents._objects import EventSource, ObjectReference
from kevents._recorder import EventRecorder
from kevents._reference import get_reference
from kevents._statistics import DropReason
from kevents._wire import printable

if TYPE_CHECKING:
    import logging

    from kevents.exceptions import InvalidEventError

__all__ = ["FakeRecorder", "RecordedEvent", "Refusal"]

Message: TypeAlias = "str | re.Pattern[str]"

_MOST_SHOWN: Final = 20


def _no_texts() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One call of a recorder, as the event it would have made.

    Attributes:
        reference: The object, as it was at the call.
        type: ``Normal`` or ``Warning``.
        reason: Why.
        message: What happened, as text.
        annotations: Of the event; not to be changed.
        labels: Of the event; not to be changed.
        source: Who recorded it.

    .. versionadded:: 0.1
    """

    reference: ObjectReference
    type: str
    reason: str
    message: str
    annotations: Mapping[str, str] = field(default_factory=_no_texts)
    labels: Mapping[str, str] = field(default_factory=_no_texts)
    source: EventSource = field(default_factory=EventSource)

    def __str__(self) -> str:
        """``Warning BackupFailed the bucket is gone``, client-go's way."""
        return f"{self.type} {self.reason} {self.message}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One call of a recorder that made no event.

    Attributes:
        reason: Why, as ``statistics()`` of a real broadcaster would count it.
        error: What a strict broadcaster would raise.

    .. versionadded:: 0.1
    """

    reason: DropReason
    error: InvalidEventError


class FakeRecorder(EventRecorder):
    """A recorder that keeps its events instead of sending them (client-go: ``FakeRecorder``).

    It is an :class:`~kevents.EventRecorder`: the same code turns a call into an event or refuses it. It never blocks,
    however many events nobody looks at (client-go's has a buffer, and blocks when that is full), and any thread may
    record and look at the same time.

    Unlike a broadcaster it is strict unless told otherwise: in a test, an event that could not be recorded is a mistake
    that should be seen where it is made.

    Args:
        source: Or the component's name alone.
        strict: Whether what a real recorder would refuse raises; if not, it is only kept in ``refused``.

    Example:
        >>> recorder = FakeRecorder()
        >>> pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "prod"}}
        >>> recorder.event(pod, "Warning", "BackupFailed", "the bucket is gone")
        >>> _ = recorder.assert_event("Warning", "BackupFailed", message="bucket", object=pod, times=1)
        >>> recorder.strings()
        ['Warning BackupFailed the bucket is gone']

    .. versionadded:: 0.1
    """

    __slots__ = ("_changed", "_events", "_refusals", "_strict")

    def __init__(self, source: EventSource | str = "fake", *, strict: bool = True) -> None:
        """Nothing recorded yet."""
        source = EventSource(source) if isinstance(source, str) else source
        super().__init__(source, self._keep, self._keep_refused)
        self._strict = strict
        # Re-entrant, as the real one's: a finaliser may record in the middle of recording.
        self._changed = threading.Condition(threading.RLock())
        self._events: list[RecordedEvent] = []
        self._refusals: list[Refusal] = []

    def _keep(
        self,
        reference: ObjectReference,
        source: EventSource,
        eventtype: str,
        reason: str,
        message: str,
        annotations: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> None:
        event = RecordedEvent(reference, eventtype, reason, message, annotations, labels, source)
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def _keep_refused(self, reason: DropReason, error: InvalidEventError, logger: logging.Logger) -> None:
        with self._changed:
            self._refusals.append(Refusal(reason, error))
        if self._strict and reason is not DropReason.RECURSION:
            raise error
        logger.warning("refused an event, %s: %s", reason, printable(str(error)))

    # -- looking -------------------------------------------------------------------------------------------------

    @property
    def events(self) -> tuple[RecordedEvent, ...]:
        """What was recorded so far, the oldest first; a copy."""
        with self._changed:
            return tuple(self._events)

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """What was refused so far, the oldest first; a copy."""
        with self._changed:
            return tuple(self._refusals)

    def strings(self, *, include_object: bool = False) -> list[str]:
        """The events as client-go's ``FakeRecorder`` writes them: ``Warning Reason message map[key:value]``.

        Args:
            include_object: Whether to add ``involvedObject{kind=Pod,apiVersion=v1}`` (client-go: ``IncludeObject``).
        """
        return [_string(event, include_object=include_object) for event in self.events]

    def clear(self) -> None:
        """Forget what was recorded and refused."""
        with self._changed:
            self._events.clear()
            self._refusals.clear()

    # -- asserting -----------------------------------------------------------------------------------------------

    def find(
        self,
        type: str | None = None,  # noqa: A002 - the API's name
        reason: str | None = None,
        *,
        message: Message | None = None,
        object: object = None,  # noqa: A002 - as in event()
    ) -> tuple[RecordedEvent, ...]:
        """The events that fit all that is given.

        Args:
            type: The type.
            reason: The reason.
            message: A part of the message, or a compiled pattern to be found in it.
            object: What the event must be about: anything that :meth:`event` takes. A uid counts if both have one.
        """
        return self._fitting(_Wanted.of(type, reason, message, object))

    def assert_event(
        self,
        type: str | None = None,  # noqa: A002
        reason: str | None = None,
        *,
        message: Message | None = None,
        object: object = None,  # noqa: A002
        times: int | None = None,
    ) -> tuple[RecordedEvent, ...]:
        """Fail unless such an event was recorded.

        Args:
            type: The type.
            reason: The reason.
            message: A part of the message, or a compiled pattern to be found in it.
            object: What the event must be about: anything that :meth:`event` takes. A uid counts if both have one.
            times: How often exactly, 0 for never; None for at least once.

        Returns:
            The events that fit.

        Raises:
            AssertionError: With what was recorded, and in what it differs.
        """
        __tracebackhide__ = True
        wanted = _Wanted.of(type, reason, message, object)
        found = self._fitting(wanted)
        if len(found) == times or (times is None and found):
            return found
        raise AssertionError(self._report(wanted, "" if times is None else f" {_times(times)}", len(found)))

    def wait_for(
        self,
        type: str | None = None,  # noqa: A002
        reason: str | None = None,
        *,
        message: Message | None = None,
        object: object = None,  # noqa: A002
        times: int = 1,
        timeout: float = 5.0,
    ) -> tuple[RecordedEvent, ...]:
        """Wait until such events were recorded, by whichever thread; it is woken, and does not poll.

        Args:
            type: The type.
            reason: The reason.
            message: A part of the message, or a compiled pattern to be found in it.
            object: What the event must be about: anything that :meth:`event` takes. A uid counts if both have one.
            times: How often at least.
            timeout: For how many seconds at most.

        Returns:
            The events that fit.

        Raises:
            AssertionError: If the time is over, with what was recorded until then.
        """
        __tracebackhide__ = True
        wanted = _Wanted.of(type, reason, message, object)
        with self._changed:
            self._changed.wait_for(lambda: len(self._fitting(wanted)) >= times, timeout)
            found = self._fitting(wanted)
        if len(found) >= times:
            return found
        raise AssertionError(self._report(wanted, f" {_times(times)} within {timeout:g} s", len(found)))

    def _fitting(self, wanted: _Wanted) -> tuple[RecordedEvent, ...]:
        return tuple(event for event in self.events if not wanted.differences(event))

    def _report(self, wanted: _Wanted, often: str, found: int) -> str:
        events, refusals = self.events, self.refused
        lines = [f"expected an event with {wanted}{often}, found {found} among {len(events)} recorded"]
        if len(events) > _MOST_SHOWN:
            lines.append(f"  ... {len(events) - _MOST_SHOWN} earlier ones, and then")
        lines += [f"  {_line(event)}{_marked(wanted.differences(event))}" for event in events[-_MOST_SHOWN:]]
        lines += [f"  refused, {each.reason}: {printable(str(each.error))}" for each in refusals[-_MOST_SHOWN:]]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """How much it holds."""
        return f"<FakeRecorder {self.source.component!r}, {len(self.events)} events>"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What an event must be; None where anything will do."""

    type: str | None
    reason: str | None
    message: Message | None
    reference: ObjectReference | None

    @classmethod
    def of(cls, type_: str | None, reason: str | None, message: Message | None, about: object) -> _Wanted:
        return cls(type_, reason, message, None if about is None else get_reference(about))

    def differences(self, event: RecordedEvent) -> list[str]:
        """The names of what does not fit."""
        fits = {
            "type": self.type in {None, event.type},
            "reason": self.reason in {None, event.reason},
            "message": self._fits_message(event.message),
            "object": self.reference is None or _same(self.reference, event.reference),
        }
        return [name for name, fit in fits.items() if not fit]

    def _fits_message(self, text: str) -> bool:
        if isinstance(self.message, re.Pattern):
            return self.message.search(text) is not None
        return self.message is None or self.message in text

    def __str__(self) -> str:
        pattern = isinstance(self.message, re.Pattern)
        message = self.message.pattern if isinstance(self.message, re.Pattern) else self.message
        parts = [f"type {self.type!r}"] if self.type is not None else []
        parts += [f"reason {self.reason!r}"] if self.reason is not None else []
        parts += [f"a message {'like' if pattern else 'with'} {message!r}"] if message is not None else []
        parts += [f"object {printable(str(self.reference))}"] if self.reference is not None else []
        return ", ".join(parts) or "anything in it"


def _same(wanted: ObjectReference, found: ObjectReference) -> bool:
    if wanted.uid and found.uid and wanted.uid != found.uid:
        return False
    return (wanted.kind, wanted.api_version, wanted.namespace, wanted.name) == (
        found.kind,
        found.api_version,
        found.namespace,
        found.name,
    )


def _line(event: RecordedEvent) -> str:
    return printable(f"{event} ({event.reference})")


def _marked(differences: list[str]) -> str:
    return f"   <- other {', '.join(differences)}" if differences else "   <- this fits"


def _times(number: int) -> str:
    return {0: "never", 1: "once"}.get(number, f"{number} times")


def _string(event: RecordedEvent, *, include_object: bool) -> str:
    reference = event.reference
    about = f" involvedObject{{kind={reference.kind},apiVersion={reference.api_version}}}" if include_object else ""
    texts = " ".join(f"{key}:{event.annotations[key]}" for key in sorted(event.annotations))
    return f"{event}{about}{f' map[{texts}]' if texts else ''}"
