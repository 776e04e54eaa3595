"""Reports dropped events: in the log, with what to do about it, and to the user's ``on_drop``."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Final

from kevents._model.statistics import DropReason
from kevents._model.wire import format_error
from kevents._queue.outcome import Failed, Rejected, Unavailable, Verb
from kevents._queue.work_item import Dropped
from kevents._runtime.log import LOGGER, LimitedLog, in_kevents, log_line

if TYPE_CHECKING:
    from kevents._model.objects import Event

OnDrop = Callable[[DropReason, "Event | None", int], object]

ADVICE: Final = {
    DropReason.NO_WATCHER: "no watcher is started: call start_recording_to_sink(...) before recording",
    DropReason.INVALID_REFERENCE: "record about an object with apiVersion, kind and name, or an ObjectReference",
    DropReason.INVALID_TYPE: "the event type must be 'Normal' or 'Warning'",
    DropReason.INVALID_MESSAGE: "reason, message, annotations and labels must be text",
    DropReason.RECURSION: "the event was recorded from within kevents' own logging, sink or callback",
    DropReason.QUEUE_FULL: "events arrive faster than the watcher handles them: record less, or raise queue_length "
    "or queue_bytes",
    DropReason.SPAM_FILTERED: "the object exceeds its rate limit: CorrelatorOptions(burst_size, qps, spam_key_func); "
    "a later write carries the count",
    DropReason.BACKLOG_FULL: "too many different events wait for the API server: raise backlog",
    DropReason.REJECTED: "the API server will never accept it",
    DropReason.RETRIES_EXHAUSTED: "it failed 12 times while the API server answered other requests",
    DropReason.EXPIRED: "the API server was unreachable for longer than max_age",
    DropReason.HANDLER_FAILED: "the watcher's handler raised an exception",
    DropReason.SHUTDOWN: "it was recorded after shutdown, or not written before the deadline: the API server is "
    "unreachable (see above), or the timeout is too short",
    DropReason.INTERNAL: "a fault in kevents: please report it, with the traceback above",
}

_ABOUT_LIMIT: Final = 200  # characters of the object and of the reason in a log line
_FORBIDDEN = 403
_ANONYMOUS = 'User "system:anonymous"'
_RBAC_TEXT = re.compile(r'User "[^"]*" cannot ')
_RULE = 'apiGroups: ["{}"], resources: ["events"], verbs: ["create", "patch"]'


class DropReporter:
    """Reports each dropped event once, in the log and to ``on_drop``, whose exceptions are logged.

    ``api_group`` is that of the written events, for the advice about missing permissions.
    """

    raise_internal = False
    """Whether faults of kevents itself are raised, as in its own tests."""

    def __init__(self, log: LimitedLog, on_drop: OnDrop | None, api_group: str = "") -> None:
        self._rule = _RULE.format(api_group)
        self.log = log
        self._on_drop = on_drop
        self._faults: set[tuple[type, int]] = set()

    def report(
        self,
        reason: DropReason,
        event: Event | None,
        events: int = 1,
        why: str = "",
        *,
        level: int = logging.WARNING,
        kind: Hashable = None,
        logger: logging.Logger = LOGGER,
    ) -> None:
        """Log the drop, and call ``on_drop``. Never raises.

        ``events`` is the number of recorded events that the event stands for. Without ``why`` the line gives the advice
        for the reason. Lines of one reason and ``kind`` are limited together.
        """
        text = partial(_format_drop, reason, event, events, why)  # built only if it is logged
        self.log.log_limited((reason, kind), text, events=events, level=level, logger=logger)
        # A recursion is not reported to on_drop: on_drop itself may have recorded the event.
        if self._on_drop is not None and reason is not DropReason.RECURSION:
            self._call(self._on_drop, reason, event, events)

    def report_fault(
        self, error: BaseException, event: Event | None, more: str = "", *, logger: logging.Logger = LOGGER
    ) -> None:
        """Report an event that was dropped by a fault of kevents itself. Its traceback is logged once."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        fault = type(error), 0 if trace is None else trace.tb_lineno
        if fault not in self._faults:
            self._faults.add(fault)
            log_line(logging.ERROR, "fault in kevents, please report it", logger=logger, error=error)
        why = format_error(error) + more
        self.report(DropReason.INTERNAL, event, why=why, level=logging.ERROR, logger=logger)

    def _call(self, on_drop: OnDrop, reason: DropReason, event: Event | None, events: int) -> None:
        with in_kevents():
            try:
                on_drop(reason, event, events)
            except KeyboardInterrupt:
                raise  # Ctrl-C belongs to the user's thread
            except BaseException as error:  # noqa: BLE001 - the user's function must not break a caller or a worker
                self.log.log_limited("on_drop", f"on_drop raised {format_error(error)}", level=logging.ERROR)

    def report_dropped(self, dropped: Dropped) -> None:
        """Report a drop by the work queue."""
        level, why = logging.WARNING, ""
        kind: Hashable = None
        if isinstance(dropped.outcome, Rejected):
            kind = (dropped.verb, dropped.outcome.code)
            level = logging.DEBUG if dropped.outcome.quiet else logging.WARNING
            why = _refusal(dropped.verb, dropped.outcome, self._rule)
        elif isinstance(dropped.outcome, Failed | Unavailable):
            why = f"{ADVICE[dropped.reason]}; the last error: {dropped.outcome.cause}"
        self.report(dropped.reason, dropped.state, dropped.events, why=why, level=level, kind=kind)


def _format_drop(reason: DropReason, event: Event | None, events: int, why: str) -> str:
    about = ""
    if event is not None and (event.reference.name or event.reason):
        about = f" about {str(event.reference)[:_ABOUT_LIMIT]} (reason {event.reason[:_ABOUT_LIMIT]})"
    dropped = "an event" if events == 1 else f"{events} events"
    return f"dropped {dropped}{about}, {reason}: {why or ADVICE[reason]}"


def _refusal(verb: Verb | None, outcome: Rejected, rule: str) -> str:
    """The server's answer; for a 403 of RBAC also the missing rule."""
    request = verb.value if verb is not None else "request"
    answer = f"the {request} was refused with {outcome.code or 'an error'} {outcome.reason}: {outcome.message}"
    answer = answer.rstrip(": ")
    if outcome.code != _FORBIDDEN or outcome.quiet or not _RBAC_TEXT.search(outcome.message):
        return answer  # admission policies, quotas and proxies answer 403 too, and a rule would not help
    if _ANONYMOUS in outcome.message:
        return f"{answer}; the request had no credentials, check the user of the kubeconfig and its exec plugin"
    missing = "the patch verb may be missing" if verb is Verb.PATCH else "the role lacks a rule"
    return f"{answer}; {missing}, grant {rule}"
