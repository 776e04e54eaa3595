"""How a loss is told: in the log, with what to do about it, and to the user's ``on_drop``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Final

from kevents._model.objects import Event
from kevents._model.statistics import DropReason
from kevents._model.wire import format_error
from kevents._queue.notifications import Dropped
from kevents._queue.outcome import Failed, Rejected, Unavailable, Verb
from kevents._runtime.log import LOGGER, LimitedLog, in_kevents

if TYPE_CHECKING:
    from kevents._queue.outcome import Outcome

OnDrop = Callable[[DropReason, "Event | None", int], object]

ADVICE: Final = {
    DropReason.NO_WATCHER: "no watcher is started: call start_recording_to_sink(...) before recording",
    DropReason.INVALID_REFERENCE: "record about an object with apiVersion, kind and name, or an ObjectReference",
    DropReason.INVALID_TYPE: "the event type must be 'Normal' or 'Warning'",
    DropReason.INVALID_MESSAGE: "reason, message, annotations and labels must have a text",
    DropReason.RECURSION: "an event was recorded by what kevents itself was logging or sending",
    DropReason.QUEUE_FULL: "a watcher is slower than events come: record less, or raise queue_length",
    DropReason.SPAM_FILTERED: "more events about one object than its budget: CorrelatorOptions(burst_size, qps, "
    "spam_key_func); the next write carries their count",
    DropReason.BACKLOG_FULL: "too many different events wait for the API server: raise backlog",
    DropReason.REJECTED: "the API server will never take it",
    DropReason.RETRIES_EXHAUSTED: "it failed 12 times, and not for want of a server",
    DropReason.EXPIRED: "the API server was unreachable for longer than max_age",
    DropReason.HANDLER_FAILED: "the watcher's handler raised",
    DropReason.SHUTDOWN: "it was recorded after shutdown, or could not be written before the deadline: an API server "
    "that is not reached (see above), or a time-out that is too short",
}

_FORBIDDEN = 403
_RULE = 'apiGroups: ["{}"], resources: ["events"], verbs: ["create", "patch"]'


class DropReporter:
    """Tells of each loss once.

    Args:
        log: Keeps the lines few.
        on_drop: The user's function, called with reason, event (None if there is none) and the number of recorded
            events lost; its own errors are logged.
        api_group: In which events are written, for what is said about missing permissions.
    """

    def __init__(self, log: LimitedLog, on_drop: OnDrop | None, api_group: str = "") -> None:
        """Nothing lost yet."""
        self._rule = _RULE.format(api_group)
        self.log = log
        self._on_drop = on_drop

    def tell(
        self,
        reason: DropReason,
        event: Event | None,
        events: int = 1,
        *,
        why: str = "",
        level: int = logging.WARNING,
        kind: Hashable = None,
        logger: logging.Logger = LOGGER,
    ) -> None:
        """Log the loss of events, and call ``on_drop``; never raises."""
        text = partial(_told_loss, reason, event, events, why)  # made only if it is said: in a storm most are not
        self.log.log_limited((reason, kind), text, events=events, level=level, logger=logger)
        # Of an echo nobody is told: that could go on for ever.
        if self._on_drop is not None and reason is not DropReason.RECURSION:
            self._call(self._on_drop, reason, event, events)

    def _call(self, on_drop: OnDrop, reason: DropReason, event: Event | None, events: int) -> None:
        with in_kevents():
            try:
                on_drop(reason, event, events)
            except KeyboardInterrupt:
                raise  # the user's, in his thread
            except BaseException as error:  # noqa: BLE001 - the user's function must not break who records, or a worker
                self.log.log_limited("on_drop", f"on_drop raised {format_error(error)}", level=logging.ERROR)

    def tell_dropped(self, dropped: Dropped) -> None:
        """Log a loss that the work queue reports."""
        event = dropped.state if isinstance(dropped.state, Event) else None
        level, why = logging.WARNING, _cause(dropped.verdict)
        kind: Hashable = None
        if isinstance(dropped.verdict, Rejected):
            kind = (dropped.verb, dropped.verdict.code)
            level = logging.DEBUG if dropped.verdict.quiet else logging.WARNING
            why = _refusal(dropped.verb, dropped.verdict, self._rule)
        self.tell(dropped.reason, event, dropped.events, why=why, level=level, kind=kind)


def _told_loss(reason: DropReason, event: Event | None, events: int, why: str) -> str:
    about = f" about {event.reference} (reason {event.reason})" if event is not None else ""
    dropped = "an event" if events == 1 else f"{events} events"
    return f"dropped {dropped}{about}, {reason}: {why or ADVICE[reason]}"


def _cause(verdict: Outcome | None) -> str:
    if isinstance(verdict, Failed | Unavailable):
        return f"{ADVICE[DropReason.RETRIES_EXHAUSTED]}; the last answer: {verdict.cause}"
    return ""


def _refusal(verb: Verb | None, verdict: Rejected, rule: str) -> str:
    """What the server said, and for a refused user the rule that is missing."""
    asked = verb.value if verb is not None else "request"
    said = f"the {asked} was refused with {verdict.code or 'an error'} {verdict.reason}: {verdict.message}".rstrip(": ")
    if verdict.code != _FORBIDDEN or verdict.quiet:
        return said
    missing = "the patch verb may be forgotten" if verb is Verb.PATCH else "the role lacks a rule"
    return f"{said}; {missing}, grant {rule}"
