"""Recorders that keep their events in memory, for tests of code that records."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Final, TypeAlias

from kevents import events as series
from kevents._broadcast.recorder import EventRecorder, reason_of, to_source
from kevents._model.objects import Event, EventSource, ObjectReference
from kevents._model.reference import get_reference
from kevents._model.statistics import DropReason
from kevents._model.wire import NO_TEXTS, format_error, printable
from kevents._runtime.log import log_line
from kevents._runtime.reentrant import SHARED
from kevents.exceptions import InvalidEventError

__all__ = ["FakeEventsV1Recorder", "FakeRecorder", "RecordedEvent", "Refusal"]

Message: TypeAlias = "str | re.Pattern[str]"

_MOST_SHOWN: Final = 20
"""An assertion error lists at most this many of the latest events."""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """The event that one call of a recorder would have made.

    Attributes:
        reference: The object, as it was at the call.
        type: ``Normal`` or ``Warning``.
        reason: The reason.
        message: The message as text; for events.k8s.io/v1 the note.
        annotations: The event's annotations; read-only.
        labels: The event's labels; read-only.
        source: The reporting component; for events.k8s.io/v1 the controller as component, its instance as host.
        action: The action. Empty without one.
        related: The second object. None without one.
    """

    reference: ObjectReference
    type: str
    reason: str
    message: str
    annotations: Mapping[str, str] = field(default_factory=lambda: NO_TEXTS)
    labels: Mapping[str, str] = field(default_factory=lambda: NO_TEXTS)
    source: EventSource = field(default_factory=EventSource)
    action: str = ""
    related: ObjectReference | None = None

    def __str__(self) -> str:
        """``Warning BackupFailed the bucket is gone``, in client-go's format."""
        return f"{self.type} {self.reason} {self.message}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One call of a recorder that made no event.

    Attributes:
        reason: The drop reason that a real broadcaster counts in its ``statistics()``.
        error: The exception that a strict broadcaster raises.
    """

    reason: DropReason
    error: Exception


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A description of events. None matches anything."""

    type: str | None
    reason: str | None
    action: str | None
    message: Message | None
    reference: ObjectReference | None

    @classmethod
    def of(
        cls, type_: str | None, reason: str | None, action: str | None, message: Message | None, about: object
    ) -> _Wanted:
        return cls(type_, reason, action, message, None if about is None else get_reference(about))

    def differences(self, event: RecordedEvent) -> list[str]:
        """Return the names of the fields that do not match."""
        fits = {
            "type": self.type in {None, event.type},
            "reason": self.reason in {None, event.reason},
            "action": self.action in {None, event.action},
            "message": self._fits_message(event.message),
            "object": self.reference is None or _same(self.reference, event.reference),
        }
        return [name for name, fit in fits.items() if not fit]

    def _fits_message(self, text: str) -> bool:
        if isinstance(self.message, re.Pattern):
            return self.message.search(text) is not None
        return self.message is None or self.message in text

    def __str__(self) -> str:
        words = {"type": self.type, "reason": self.reason, "action": self.action}
        parts = [f"{name} {word!r}" for name, word in words.items() if word is not None]
        if isinstance(self.message, re.Pattern):
            parts.append(f"a message like {self.message.pattern!r}")
        elif self.message is not None:
            parts.append(f"a message with {self.message!r}")
        parts += [f"object {printable(str(self.reference))}"] if self.reference is not None else []
        return ", ".join(parts) or "anything in it"


_fields_of: Final = attrgetter(*(each.name for each in fields(RecordedEvent)))


class _Book:
    """The publisher of a fake recorder: it holds events and refusals. Any thread may write and read at the same time.

    Args:
        strict: Whether a refused event raises.
    """

    def __init__(self, *, strict: bool) -> None:
        self.now = time.time_ns
        self._strict = strict
        # Re-entrant, like the real recorder's lock: a finaliser may record while another event is recorded.
        self.changed = threading.Condition(threading.RLock())
        self.events: list[RecordedEvent] = []
        self.refusals: list[Refusal] = []

    def publish(self, event: Event) -> None:
        """Add an event."""
        recorded = RecordedEvent(*_fields_of(event))
        with self.changed:
            self.changed.notify_all()
            self.events.append(recorded)  # last: if the stack ends in a call above, the event is published later

    def refuse(self, error: Exception, event: Event | None, logger: logging.Logger) -> None:
        """Add a refusal; raise its error if strict."""
        reason = reason_of(error)
        with self.changed:
            self.refusals.append(Refusal(reason, error))
        if self._strict and reason is not DropReason.RECURSION:
            raise error
        about = f" about {event.reference} (reason {event.reason[:100]})" if event is not None else ""
        log_line(
            logging.WARNING,
            f"refused an event{printable(about)}, {reason}: {printable(format_error(error))}",
            logger=logger,
        )

    def omit(self, error: InvalidEventError, logger: logging.Logger) -> None:
        """Log that an optional part of an event was left out; raise the error if strict."""
        if self._strict:
            raise error
        log_line(logging.WARNING, f"recorded an event without a part: {printable(str(error))}", logger=logger)

    def report_change(self, text: str, logger: logging.Logger) -> None:
        """Log that a value was replaced."""
        log_line(logging.WARNING, printable(text), logger=logger)


class _Assertions:
    """The questions of a test, shared by the fake recorders of both APIs."""

    __slots__ = ()

    _book: _Book

    @property
    def events(self) -> tuple[RecordedEvent, ...]:
        """The recorded events, oldest first; a copy."""
        SHARED.run_postponed()
        with self._book.changed:
            return tuple(self._book.events)

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """The refused calls, oldest first; a copy."""
        SHARED.run_postponed()
        with self._book.changed:
            return tuple(self._book.refusals)

    def strings(self, *, include_object: bool = False) -> list[str]:
        """The events in the format of client-go's ``FakeRecorder``: ``Warning Reason message map[key:value]``.

        Args:
            include_object: Whether to add ``involvedObject{kind=Pod,apiVersion=v1}`` (client-go: ``IncludeObject``).
        """
        return [_string(event, include_object=include_object) for event in self.events]

    def clear(self) -> None:
        """Forget all recorded events and refusals."""
        with self._book.changed:
            self._book.events.clear()
            self._book.refusals.clear()

    def find(
        self,
        eventtype: str | None = None,
        reason: str | None = None,
        *,
        type: str | None = None,  # noqa: A002 - the API's name
        action: str | None = None,
        message: Message | None = None,
        object: object = None,  # noqa: A002 - as in event()
    ) -> tuple[RecordedEvent, ...]:
        """The events that match all given arguments.

        Args:
            eventtype: The type.
            reason: The reason.
            type: Another name of ``eventtype``.
            action: The action.
            message: A substring of the message, or a compiled pattern to search in it; for events.k8s.io/v1 the note.
            object: The event's object, in any form that ``event()`` takes. Uids are compared if both have one.
        """
        return self._matching(_Wanted.of(eventtype or type, reason, action, message, object))

    def assert_event(
        self,
        eventtype: str | None = None,
        reason: str | None = None,
        *,
        type: str | None = None,  # noqa: A002
        action: str | None = None,
        message: Message | None = None,
        object: object = None,  # noqa: A002
        times: int | None = None,
    ) -> tuple[RecordedEvent, ...]:
        """Fail unless such an event was recorded: exactly ``times`` times, 0 for never, or by default at least once.

        The other arguments are those of :meth:`find`.

        Returns:
            The events that match.

        Raises:
            AssertionError: Lists the recorded events and the fields that differ.
        """
        __tracebackhide__ = True
        wanted = _Wanted.of(eventtype or type, reason, action, message, object)
        found = self._matching(wanted)
        if len(found) == times or (times is None and found):
            return found
        raise AssertionError(self._report(wanted, "" if times is None else f" {_times(times)}", len(found)))

    def wait_for(
        self,
        eventtype: str | None = None,
        reason: str | None = None,
        *,
        type: str | None = None,  # noqa: A002
        action: str | None = None,
        message: Message | None = None,
        object: object = None,  # noqa: A002
        times: int = 1,
        timeout: float = 5.0,
    ) -> tuple[RecordedEvent, ...]:
        """Wait until any thread has recorded ``times`` such events or more, for at most ``timeout`` seconds.

        It does not poll. The other arguments are those of :meth:`find`.

        Returns:
            The events that match.

        Raises:
            AssertionError: The time is over. Lists the events that were recorded until then.
            ValueError: ``times`` is below 1: the absence of an event cannot be waited for.
        """
        __tracebackhide__ = True
        if times < 1:
            raise ValueError(
                f"times must be at least 1, not {times}; for never, assert_event(times=0) when all is done"
            )
        wanted = _Wanted.of(eventtype or type, reason, action, message, object)
        with self._book.changed:
            self._book.changed.wait_for(lambda: len(self._matching(wanted)) >= times, timeout)
            found = self._matching(wanted)
        if len(found) >= times:
            return found
        raise AssertionError(self._report(wanted, f" {_times(times)} within {timeout:g} s", len(found)))

    def _matching(self, wanted: _Wanted) -> tuple[RecordedEvent, ...]:
        return tuple(event for event in self.events if not wanted.differences(event))

    def _report(self, wanted: _Wanted, often: str, found: int) -> str:
        """Return the text of an assertion error: the latest events, each with the fields that differ."""
        events, refusals = self.events, self.refused
        lines = [f"expected an event with {wanted}{often}, found {found} among {len(events)} recorded"]
        if len(events) > _MOST_SHOWN:
            lines.append(f"  ... {len(events) - _MOST_SHOWN} earlier ones, and then")
        for event in events[-_MOST_SHOWN:]:
            other = ", ".join(wanted.differences(event))
            lines.append(f"  {_line(event)}   <- {f'other {other}' if other else 'this fits'}")
        lines += [f"  refused, {each.reason}: {printable(str(each.error))}" for each in refusals[-_MOST_SHOWN:]]
        return "\n".join(lines)


class FakeRecorder(_Assertions, EventRecorder):
    """A recorder that keeps its events instead of sending them (client-go: ``FakeRecorder``).

    It is an :class:`~kevents.EventRecorder`: the same code makes an event from a call or refuses it. It never blocks
    and has no limit (client-go's blocks when its buffer is full). Any thread may record and look at the same time.

    It is strict by default, unlike a broadcaster: a test should fail at the call that could not be recorded.

    Args:
        source: The source, or the component's name alone.
        strict: Whether a refused call raises. If not, it is only added to ``refused``.

    Example:
        >>> recorder = FakeRecorder()
        >>> pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "prod"}}
        >>> recorder.event(pod, "Warning", "BackupFailed", "the bucket is gone")
        >>> _ = recorder.assert_event("Warning", "BackupFailed", message="bucket", object=pod, times=1)
        >>> recorder.strings()
        ['Warning BackupFailed the bucket is gone']
    """

    __slots__ = ("_book",)

    def __init__(self, source: EventSource | str = "fake", *, strict: bool = True) -> None:
        self._book = _Book(strict=strict)
        super().__init__(to_source(source), self._book)

    def __repr__(self) -> str:
        return f"<FakeRecorder {self.source.component!r}, {len(self.events)} events>"


class FakeEventsV1Recorder(_Assertions, series.EventRecorder):
    """A recorder of events.k8s.io/v1 that keeps its events (client-go: ``FakeRecorder`` of ``tools/events``).

    It is a :class:`kevents.events.EventRecorder`; in all else it is like :class:`FakeRecorder`.

    Args:
        reporting_controller: The name of the controller.
        strict: Whether a refused call raises. If not, it is only added to ``refused``.

    Raises:
        ValueError: The API server would refuse the controller's name.

    Example:
        >>> recorder = FakeEventsV1Recorder()
        >>> pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "prod"}}
        >>> recorder.eventf(pod, None, "Warning", "BackupFailed", "BackingUp", "no room in %s", "b-1")
        >>> [event] = recorder.assert_event("Warning", "BackupFailed", action="BackingUp", object=pod)
        >>> event.message
        'no room in b-1'
    """

    __slots__ = ("_book",)

    def __init__(self, reporting_controller: str = "fake", *, strict: bool = True) -> None:
        self._book = _Book(strict=strict)
        super().__init__(series.reporting_source(reporting_controller, None), self._book)

    def __repr__(self) -> str:
        return f"<FakeEventsV1Recorder {self.reporting_controller!r}, {len(self.events)} events>"


def _same(wanted: ObjectReference, found: ObjectReference) -> bool:
    if wanted.uid and found.uid and wanted.uid != found.uid:
        return False
    name_of = attrgetter("kind", "api_version", "namespace", "name")
    return bool(name_of(wanted) == name_of(found))


def _line(event: RecordedEvent) -> str:
    action = f", {event.action}" if event.action else ""
    return printable(f"{event} ({event.reference}{action})")


def _times(number: int) -> str:
    return {0: "never", 1: "once"}.get(number, f"{number} times")


def _string(event: RecordedEvent, *, include_object: bool) -> str:
    reference = event.reference
    about = f" involvedObject{{kind={reference.kind},apiVersion={reference.api_version}}}" if include_object else ""
    texts = " ".join(f"{key}:{event.annotations[key]}" for key in sorted(event.annotations))
    return f"{event}{about}{f' map[{texts}]' if texts else ''}"
