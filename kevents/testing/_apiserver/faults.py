"""Scripted faults: how the server misbehaves on request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from kevents.testing._apiserver.requests import Cause, Request

_LEAST: Final = 200
_MOST: Final = 599


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with a Status of failure instead of doing the work.

    Attributes:
        code: The HTTP status.
        reason: The reason. Empty for none.
        message: The text. By default one that names the code.
        causes: Entries of `details.causes`.
        retry_after: The `Retry-After` header, sent as given. Empty for none.
        retry_after_seconds: `details.retryAfterSeconds`. None for none.
    """

    code: int
    reason: str = ""
    message: str = ""
    causes: tuple[Cause, ...] = ()
    retry_after: str | int = ""
    retry_after_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """Do the work after a delay. Later rules still apply.

    Attributes:
        seconds: The delay in seconds.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection without an answer.

    Attributes:
        after_processing: Whether the work is done first: the answer is lost, the write is not.
    """

    after_processing: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """Do not answer. The connection is closed when the rule is removed or the server stops.

    Attributes:
        after_processing: Whether the work is done first.
    """

    after_processing: bool = False


@dataclass(frozen=True, slots=True)
class Garbage:
    """Answer with a body that is no API object.

    Attributes:
        body: The body.
        status: The HTTP status. 0 for the status of the work (200 if the work is not done).
        content_type: The `Content-Type` of the answer.
        size: The length of the answer in bytes: `body` is repeated up to it, while it is sent. 0 for the length of
            `body`.
        after_processing: Whether the work is done first.
    """

    body: bytes = b""
    status: int = 0
    content_type: str = "application/json"
    size: int = 0
    after_processing: bool = True


Fault = Status | Delay | Reset | Hang | Garbage


Matcher: TypeAlias = "Callable[[Request], bool]"
"""A condition on requests."""


@dataclass(eq=False, slots=True)
class Rule:
    """A fault that applies to requests; as a context manager it ends with its block.

    Attributes:
        fault: The fault.
        matches: The condition on requests.
        remaining: How many more times it applies. None for no limit.
        hits: How many times it has applied.
    """

    fault: Fault
    matches: Matcher
    remaining: int | None
    forget: Callable[[Rule], None]
    hits: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def remove(self) -> None:
        """Remove the rule. Requests that it delays go on, requests that it hangs are closed."""
        self.forget(self)
        self.released.set()

    def __enter__(self) -> Rule:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class Faults:
    """The rules, oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: tuple[Rule, ...] = ()
        self.closed = False  # while the server stops, and then requests that were delayed are not served

    def __bool__(self) -> bool:
        return bool(self._rules)

    def add(
        self, fault: Fault | int, times: int | None, method: str | None, path: str | None, when: Matcher | None
    ) -> Rule:
        """Add a rule. Raises TypeError and ValueError: as `APIServer.fail`, which describes the arguments."""
        chosen = Status(fault) if type(fault) is int else fault
        if not isinstance(chosen, Fault):
            known = "an HTTP status or a Status, Delay, Reset, Hang or Garbage"
            raise TypeError(f"a server's fault is {known} of kevents.testing, not {fault!r}")
        if isinstance(chosen, Status) and not _LEAST <= chosen.code <= _MOST:
            raise ValueError(f"an HTTP status is from {_LEAST} to {_MOST}, not {chosen.code}")
        if times is not None and times < 0:
            raise ValueError(f"times must be None, for all requests, or a number from 0, not {times}")
        verb = method and method.upper()

        def matches(request: Request) -> bool:
            return (
                (verb is None or request.method == verb)
                and (path is None or path in request.path)
                and (when is None or when(request))
            )

        rule = Rule(chosen, matches, times, self._forget)
        with self._lock:
            self._rules = (*self._rules, rule)
            if self.closed:
                rule.released.set()
        return rule

    def apply(self, request: Request) -> Rule | None:
        """Wait for the delays that apply to the request; return the first other rule that does, or None."""
        for rule in self._rules:
            if rule.matches(request) and self._use(rule):
                if not isinstance(rule.fault, Delay):
                    return rule
                rule.released.wait(rule.fault.seconds)
        return None

    def open(self) -> None:
        """Let rules delay and hang requests again."""
        with self._lock:
            self.closed = False
            for rule in self._rules:
                rule.released.clear()

    def close(self) -> None:
        """Release all requests that are delayed or hang, also those to come."""
        with self._lock:
            self.closed = True
            for rule in self._rules:
                rule.released.set()

    def clear(self) -> None:
        for rule in self._rules:
            rule.remove()

    def _use(self, rule: Rule) -> bool:
        with self._lock:
            if rule.remaining == 0:
                return False
            if rule.remaining is not None:
                rule.remaining -= 1
            rule.hits += 1
            # A used-up rule that holds a request stays, so that `close` can release it.
            if rule.remaining == 0 and not isinstance(rule.fault, Delay | Hang):
                self._rules = tuple(other for other in self._rules if other is not rule)
            return True

    def _forget(self, rule: Rule) -> None:
        with self._lock:
            self._rules = tuple(other for other in self._rules if other is not rule)
