"""From a request to its answer: faults, who asks, what for, and in which shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from kevents.testing._apiserver.access import authorize, authorize_path, call_for, target_of
from kevents.testing._apiserver.discovery import Discovery
from kevents.testing._apiserver.faults import Garbage, Hang, Status
from kevents.testing._apiserver.http import MAX_BODY, Answer, Stream, dump, json_answer
from kevents.testing._apiserver.listener import DroppedError
from kevents.testing._apiserver.shapes import negotiate, render
from kevents.testing._apiserver.status import APIError, status_body

if TYPE_CHECKING:
    from kevents.testing._apiserver.access import Access
    from kevents.testing._apiserver.faults import Fault, Faults, Rule
    from kevents.testing._apiserver.kinds import Kinds
    from kevents.testing._apiserver.listener import Connection
    from kevents.testing._apiserver.requests import Incoming, RequestLog
    from kevents.testing._apiserver.resources import Resources
    from kevents.testing._apiserver.watch import Watches

__all__ = ["Handler"]


class Handler:
    """Answers requests.

    Args:
        access: The users.
        faults: What goes wrong.
        log: Where requests are noted.
        kinds: The kinds there are.
        resources: What is done with their objects.
        watches: What goes on about them.
    """

    def __init__(
        self, access: Access, faults: Faults, log: RequestLog, kinds: Kinds, resources: Resources, watches: Watches
    ) -> None:
        self._access = access
        self._faults = faults
        self._log = log
        self._kinds = kinds
        self._resources = resources
        self._discovery = Discovery(kinds)
        self._watches = watches

    def open(self) -> None:
        """Begin to serve."""
        self._faults.open()
        self._watches.open()

    def close(self) -> None:
        """Let go of every request that waits: delays, hangs, watches."""
        self._faults.close()
        self._watches.close()

    def handle(self, connection: Connection, request: Incoming) -> Answer | Stream:
        """Give the answer to a request.

        Raises:
            DroppedError: The connection is to be closed without one.
        """
        self._log.started(request)
        rule = self._faults.meet(request.snapshot()) if self._faults else None
        if self._faults.closed:
            raise DroppedError(hard=False)
        if rule is None:
            answer = self._answer(connection, request)
        elif isinstance(rule.fault, Hang):
            self._hang(connection, request, rule)
        else:
            answer = self._faulty(connection, request, rule.fault)
        self._log.answered(request, answer.status if isinstance(answer, Answer) else 200)
        return answer

    def _hang(self, connection: Connection, request: Incoming, rule: Rule) -> NoReturn:
        if isinstance(rule.fault, Hang) and rule.fault.after_processing:
            self._answer(connection, request)
            self._log.notify()
        rule.released.wait()
        raise DroppedError(hard=False)

    def _faulty(self, connection: Connection, request: Incoming, fault: Fault) -> Answer:
        if isinstance(fault, Status):
            return _refusal(fault)
        done = getattr(fault, "after_processing", False)
        earned = self._answer(connection, request) if done else None
        if isinstance(fault, Garbage):
            status = fault.status or (earned.status if isinstance(earned, Answer) else 200)
            return Answer(status, fault.body, fault.content_type, size=fault.size)
        raise DroppedError(hard=True)

    def _answer(self, connection: Connection, request: Incoming) -> Answer | Stream:
        try:
            return self._serve(connection, request)
        except APIError as error:
            return json_answer(error.code, error.body(), tuple(error.headers.items()))

    def _serve(self, connection: Connection, request: Incoming) -> Answer | Stream:
        user = self._access.user(request)
        target = target_of(request.target)
        if target is None:
            authorize_path(user, request.path)
            return self._discovery.answer(request)
        authorize(target, user, request)
        if not self._kinds.has(target.group, target.version):
            return self._discovery.answer(request)
        call = call_for(target, request, self._kinds)
        if request.too_large:
            message = f"Request entity too large: limit is {MAX_BODY}"
            raise APIError(413, "RequestEntityTooLarge", message)
        shape = negotiate(
            request.headers.get("accept", ""),
            listed=call.verb == "list",
            include=request.query.get("includeObject", ""),
        )
        if call.verb == "watch":
            return self._watches.stream(call, shape, connection.socket)
        reply = self._resources.serve(call)
        warnings = tuple(("Warning", f'299 - "{_escaped(text)}"') for text in reply.warnings)
        return Answer(reply.status, dump(render(reply, shape, self._resources.store.clock())), headers=warnings)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _refusal(fault: Status) -> Answer:
    details: dict[str, Any] = {}
    if fault.causes:
        details["causes"] = [cause.as_dict() for cause in fault.causes]
    if fault.retry_after_seconds is not None:
        details["retryAfterSeconds"] = fault.retry_after_seconds
    message = fault.message or f"the embedded server was told to answer {fault.code}"
    headers = (("Retry-After", str(fault.retry_after)),) if fault.retry_after != "" else ()
    return json_answer(fault.code, status_body(fault.code, fault.reason, message, details or None), headers)
