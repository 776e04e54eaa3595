"""Recorders that keep what is recorded, for tests of code that records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kevents import events as series
from kevents._broadcast.recorder import EventRecorder, source_of
from kevents._model.objects import ObjectReference
from kevents.testing.recorded import Book, Message, RecordedEvent, Refusal, Wanted

if TYPE_CHECKING:
    from kevents._model.objects import EventSource
    from kevents._model.series_event import SeriesEvent

__all__ = ["FakeEventsV1Recorder", "FakeRecorder"]


class Looking:
    """What a test may ask a fake recorder of either API."""

    __slots__ = ()

    _book: Book

    @property
    def events(self) -> tuple[RecordedEvent, ...]:
        """What was recorded so far, the oldest first; a copy."""
        return self._book.events

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """What was refused so far, the oldest first; a copy."""
        return self._book.refusals

    def strings(self, *, include_object: bool = False) -> list[str]:
        """The events as client-go's ``FakeRecorder`` writes them: ``Warning Reason message map[key:value]``.

        Args:
            include_object: Whether to add ``involvedObject{kind=Pod,apiVersion=v1}`` (client-go: ``IncludeObject``).
        """
        return [_string(event, include_object=include_object) for event in self.events]

    def clear(self) -> None:
        """Forget what was recorded and refused."""
        self._book.clear()

    def find(
        self,
        type: str | None = None,  # noqa: A002 - the API's name
        reason: str | None = None,
        *,
        action: str | None = None,
        message: Message | None = None,
        object: object = None,  # noqa: A002 - as in event()
    ) -> tuple[RecordedEvent, ...]:
        """The events that fit all that is given.

        Args:
            type: The type.
            reason: The reason.
            action: The action; events of core/v1 have none.
            message: A part of the message, or a compiled pattern to be found in it; of events.k8s.io/v1 the note.
            object: What the event must be about: anything that can be recorded about. A uid counts if both have one.
        """
        return self._book.fitting(Wanted.of(type, reason, action, message, object))

    def assert_event(
        self,
        type: str | None = None,  # noqa: A002
        reason: str | None = None,
        *,
        action: str | None = None,
        message: Message | None = None,
        object: object = None,  # noqa: A002
        times: int | None = None,
    ) -> tuple[RecordedEvent, ...]:
        """Fail unless such an event was recorded, ``times`` exactly, 0 for never, or at least once.

        All else is as for :meth:`find`.

        Returns:
            The events that fit.

        Raises:
            AssertionError: With what was recorded, and in what it differs.
        """
        __tracebackhide__ = True
        wanted = Wanted.of(type, reason, action, message, object)
        found = self._book.fitting(wanted)
        if len(found) == times or (times is None and found):
            return found
        raise AssertionError(self._book.report(wanted, "" if times is None else f" {_times(times)}", len(found)))

    def wait_for(
        self,
        type: str | None = None,  # noqa: A002
        reason: str | None = None,
        *,
        action: str | None = None,
        message: Message | None = None,
        object: object = None,  # noqa: A002
        times: int = 1,
        timeout: float = 5.0,
    ) -> tuple[RecordedEvent, ...]:
        """Wait until such events were recorded, ``times`` at least, by whichever thread, for ``timeout`` seconds.

        It is woken, and does not poll. All else is as for :meth:`find`.

        Returns:
            The events that fit.

        Raises:
            AssertionError: If the time is over, with what was recorded until then.
            ValueError: If ``times`` is below 1: that nothing comes cannot be waited for.
        """
        __tracebackhide__ = True
        if times < 1:
            raise ValueError(
                f"times must be at least 1, not {times}; for never, assert_event(times=0) when all is done"
            )
        wanted = Wanted.of(type, reason, action, message, object)
        found = self._book.wait_fitting(wanted, times, timeout)
        if len(found) >= times:
            return found
        raise AssertionError(self._book.report(wanted, f" {_times(times)} within {timeout:g} s", len(found)))


class FakeRecorder(Looking, EventRecorder):
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

    __slots__ = ("_book",)

    def __init__(self, source: EventSource | str = "fake", *, strict: bool = True) -> None:
        """Nothing recorded yet."""
        self._book = Book(strict=strict)
        super().__init__(source_of(source), self._keep, self._book.refuse)

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
        self._book.keep(RecordedEvent(reference, eventtype, reason, message, annotations, labels, source))

    def __repr__(self) -> str:
        """How much it holds."""
        return f"<FakeRecorder {self.source.component!r}, {len(self.events)} events>"


class FakeEventsV1Recorder(Looking, series.EventRecorder):
    """A recorder of events.k8s.io/v1 that keeps its events (client-go: ``FakeRecorder`` of ``tools/events``).

    A :class:`kevents.events.EventRecorder`; in all else as :class:`FakeRecorder`.

    Args:
        reporting_controller: Whose events it records.
        strict: Whether what a real recorder would refuse raises; if not, it is only kept in ``refused``.

    Raises:
        ValueError: If the API server would refuse the controller's name.

    Example:
        >>> recorder = FakeEventsV1Recorder()
        >>> pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "prod"}}
        >>> recorder.eventf(pod, None, "Warning", "BackupFailed", "BackingUp", "no room in %s", "b-1")
        >>> [event] = recorder.assert_event("Warning", "BackupFailed", action="BackingUp", object=pod)
        >>> event.message
        'no room in b-1'

    .. versionadded:: 0.1
    """

    __slots__ = ("_book",)

    def __init__(self, reporting_controller: str = "fake", *, strict: bool = True) -> None:
        """Nothing recorded yet."""
        self._book = Book(strict=strict)
        super().__init__(series.reporting_source(reporting_controller, None), _Inside(self._book))

    def __repr__(self) -> str:
        """How much it holds."""
        return f"<FakeEventsV1Recorder {self.reporting_controller!r}, {len(self.events)} events>"


class _Inside:
    """What a recorder of events.k8s.io/v1 takes for the inside of its broadcaster."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self.refuse = book.refuse
        self.doubt = book.doubt
        self.now = time.time_ns

    def offer(self, event: SeriesEvent, /) -> None:
        """Keep it."""
        self._book.keep(
            RecordedEvent(
                event.reference,
                event.type,
                event.reason,
                event.message,
                event.annotations,
                event.labels,
                event.source,
                event.action,
                event.related,
            )
        )


def _times(number: int) -> str:
    return {0: "never", 1: "once"}.get(number, f"{number} times")


def _string(event: RecordedEvent, *, include_object: bool) -> str:
    reference = event.reference
    about = f" involvedObject{{kind={reference.kind},apiVersion={reference.api_version}}}" if include_object else ""
    texts = " ".join(f"{key}:{event.annotations[key]}" for key in sorted(event.annotations))
    return f"{event}{about}{f' map[{texts}]' if texts else ''}"
