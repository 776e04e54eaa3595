"""What fake recorders keep, and how it is looked for."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from kevents._model.objects import EventSource, ObjectReference
from kevents._model.reference import get_reference
from kevents._model.statistics import DropReason
from kevents._model.wire import printable

if TYPE_CHECKING:
    import logging

    from kevents.exceptions import InvalidEventError

__all__ = ["Book", "Message", "RecordedEvent", "Refusal", "Wanted"]

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
        message: What happened, as text; of events.k8s.io/v1 the note.
        annotations: Of the event; not to be changed.
        labels: Of the event; not to be changed.
        source: Who recorded it; of events.k8s.io/v1 the controller as component, its instance as host.
        action: What was done; empty in core/v1.
        related: The second object; None in core/v1.

    .. versionadded:: 0.1
    """

    reference: ObjectReference
    type: str
    reason: str
    message: str
    annotations: Mapping[str, str] = field(default_factory=_no_texts)
    labels: Mapping[str, str] = field(default_factory=_no_texts)
    source: EventSource = field(default_factory=EventSource)
    action: str = ""
    related: ObjectReference | None = None

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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an event must be; None where anything will do."""

    type: str | None
    reason: str | None
    action: str | None
    message: Message | None
    reference: ObjectReference | None

    @classmethod
    def of(
        cls, type_: str | None, reason: str | None, action: str | None, message: Message | None, about: object
    ) -> Wanted:
        """From what a test gives."""
        return cls(type_, reason, action, message, None if about is None else get_reference(about))

    def differences(self, event: RecordedEvent) -> list[str]:
        """The names of what does not fit."""
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
        """In words."""
        words = {"type": self.type, "reason": self.reason, "action": self.action}
        parts = [f"{name} {word!r}" for name, word in words.items() if word is not None]
        if self.message is not None:
            pattern = isinstance(self.message, re.Pattern)
            text = self.message.pattern if isinstance(self.message, re.Pattern) else self.message
            parts.append(f"a message {'like' if pattern else 'with'} {text!r}")
        parts += [f"object {printable(str(self.reference))}"] if self.reference is not None else []
        return ", ".join(parts) or "anything in it"


class Book:
    """Holds what was recorded and refused; any thread may write and read at the same time.

    Args:
        strict: Whether what is refused raises.
    """

    def __init__(self, *, strict: bool) -> None:
        """Nothing recorded yet."""
        self._strict = strict
        # Re-entrant, as the real recorder's: a finaliser may record in the middle of recording.
        self._changed = threading.Condition(threading.RLock())
        self._events: list[RecordedEvent] = []
        self._refusals: list[Refusal] = []

    def keep(self, event: RecordedEvent) -> None:
        """Take an event."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def refuse(self, reason: DropReason, error: InvalidEventError, logger: logging.Logger) -> None:
        """Take a refusal; if strict, raise it."""
        with self._changed:
            self._refusals.append(Refusal(reason, error))
        if self._strict and reason is not DropReason.RECURSION:
            raise error
        logger.warning("refused an event, %s: %s", reason, printable(str(error)))

    def doubt(self, error: InvalidEventError, logger: logging.Logger) -> None:
        """Tell of a part that an event can do without; if strict, raise it."""
        if self._strict:
            raise error
        logger.warning("recorded an event without a part: %s", printable(str(error)))

    @property
    def events(self) -> tuple[RecordedEvent, ...]:
        """What was recorded so far; a copy."""
        with self._changed:
            return tuple(self._events)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What was refused so far; a copy."""
        with self._changed:
            return tuple(self._refusals)

    def clear(self) -> None:
        """Forget both."""
        with self._changed:
            self._events.clear()
            self._refusals.clear()

    def fitting(self, wanted: Wanted) -> tuple[RecordedEvent, ...]:
        """The events that are what is wanted."""
        return tuple(event for event in self.events if not wanted.differences(event))

    def wait_fitting(self, wanted: Wanted, times: int, timeout: float) -> tuple[RecordedEvent, ...]:
        """Wait until there are so many of them, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.fitting(wanted)) >= times, timeout)
            return self.fitting(wanted)

    def report(self, wanted: Wanted, often: str, found: int) -> str:
        """What was wanted, and in what each of the latest events differs from it."""
        events, refusals = self.events, self.refusals
        lines = [f"expected an event with {wanted}{often}, found {found} among {len(events)} recorded"]
        if len(events) > _MOST_SHOWN:
            lines.append(f"  ... {len(events) - _MOST_SHOWN} earlier ones, and then")
        lines += [f"  {_line(event)}{_marked(wanted.differences(event))}" for event in events[-_MOST_SHOWN:]]
        lines += [f"  refused, {each.reason}: {printable(str(each.error))}" for each in refusals[-_MOST_SHOWN:]]
        return "\n".join(lines)


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
    action = f", {event.action}" if event.action else ""
    return printable(f"{event} ({event.reference}{action})")


def _marked(differences: list[str]) -> str:
    return f"   <- other {', '.join(differences)}" if differences else "   <- this fits"
