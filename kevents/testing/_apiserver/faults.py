"""Scripted faults: what an API server does to its clients on a bad day."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from kevents.testing._apiserver.requests import Request
    from kevents.testing._apiserver.status import Cause

__all__ = ["Delay", "Fault", "Faults", "Garbage", "Hang", "Reset", "Rule", "Status", "checked", "matching"]

_LEAST: Final = 200
_MOST: Final = 599


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with a Status of failure instead of doing the work.

    Attributes:
        code: The HTTP status.
        reason: The reason; empty for none.
        message: The text; empty for one that names the code.
        causes: Entries of `details.causes`.
        retry_after: The `Retry-After` header as it goes out, empty for none.
        retry_after_seconds: `details.retryAfterSeconds`, None for none.

    .. versionadded:: 0.1
    """

    code: int
    reason: str = ""
    message: str = ""
    causes: tuple[Cause, ...] = ()
    retry_after: str | int = ""
    retry_after_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """Do the work `seconds` later; further rules still apply.

    .. versionadded:: 0.1
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Reset:
    """Close the connection hard, before the work or after it (the answer is lost, the write is not).

    .. versionadded:: 0.1
    """

    after_processing: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answer, until the rule is removed or the server stops; then the connection is closed.

    .. versionadded:: 0.1
    """

    after_processing: bool = False


@dataclass(frozen=True, slots=True)
class Garbage:
    """Answer with something that is no API object.

    Attributes:
        body: What goes out, repeated until it has `size` bytes.
        status: The HTTP status; 0 for the one the work earned (200 when it is not done).
        content_type: The response's `Content-Type`.
        size: The length of the body in bytes, 0 for that of `body`: a huge one is made while it is sent.
        after_processing: Whether the work is done first.

    .. versionadded:: 0.1
    """

    body: bytes = b""
    status: int = 0
    content_type: str = "application/json"
    size: int = 0
    after_processing: bool = True


Fault = Status | Delay | Reset | Hang | Garbage


class Matcher(Protocol):
    """Which requests a rule is about."""

    def __call__(self, request: Request, /) -> bool:
        """Tell whether the rule applies to the request."""


def checked(fault: Fault | int, times: int | None) -> Fault:
    """Give the fault, made of a number if it is one.

    Raises:
        TypeError: It is no fault.
        ValueError: No HTTP status has that number, or `times` is negative.
    """
    chosen = Status(fault) if type(fault) is int else fault
    if not isinstance(chosen, Fault):
        known = "an HTTP status or a Status, Delay, Reset, Hang or Garbage"
        raise TypeError(f"a server's fault is {known} of kevents.testing, not {fault!r}")
    if isinstance(chosen, Status) and not _LEAST <= chosen.code <= _MOST:
        raise ValueError(f"an HTTP status is from {_LEAST} to {_MOST}, not {chosen.code}")
    if times is not None and times < 0:
        raise ValueError(f"times must be None, for all requests, or a number from 0, not {times}")
    return chosen


def matching(method: str | None, path: str | None, when: Callable[[Request], bool] | None) -> Matcher:
    """Give what matches a request with this method, a path that contains this, and for which this is true."""
    verb = method and method.upper()

    def matches(request: Request, /) -> bool:
        return (
            (verb is None or request.method == verb)
            and (path is None or path in request.path)
            and (when is None or when(request))
        )

    return matches


@dataclass(eq=False, slots=True)
class Rule:
    """A fault that waits for requests; a context manager that ends with its block.

    Attributes:
        fault: What happens.
        matches: To which requests.
        remaining: How often still; None for as long as the rule stands.
        hits: How many requests it has met.

    .. versionadded:: 0.1
    """

    fault: Fault
    matches: Matcher
    remaining: int | None
    forget: Callable[[Rule], None]
    hits: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def remove(self) -> None:
        """Take the rule away; requests that wait because of it go on."""
        self.forget(self)
        self.released.set()

    def __enter__(self) -> Self:
        """Stand until the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the rule."""
        self.remove()


class Faults:
    """The rules in the order in which they were made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: tuple[Rule, ...] = ()
        self._closed = False

    def __bool__(self) -> bool:
        """Tell whether there is any rule."""
        return bool(self._rules)

    @property
    def closed(self) -> bool:
        """Whether the server ends: what waited is not to be done any more."""
        return self._closed

    def add(self, fault: Fault, times: int | None, matches: Matcher) -> Rule:
        """Make a rule for the next `times` matching requests, or for all of them."""
        rule = Rule(fault, matches, times, self._forget)
        with self._lock:
            self._rules = (*self._rules, rule)
            if self._closed:
                rule.released.set()
        return rule

    def meet(self, request: Request) -> Rule | None:
        """Give the rule that decides about the request, after the delays that apply to it.

        Args:
            request: The request that has just been read.

        Returns:
            A rule whose fault is no `Delay`, or None.
        """
        for rule in self._rules:
            if rule.matches(request) and self._use(rule):
                if not isinstance(rule.fault, Delay):
                    return rule
                rule.released.wait(rule.fault.seconds)
        return None

    def open(self) -> None:
        """Let rules hold requests again."""
        with self._lock:
            self._closed = False
            for rule in self._rules:
                rule.released.clear()

    def close(self) -> None:
        """Let go of every request that waits, and of those to come."""
        with self._lock:
            self._closed = True
            for rule in self._rules:
                rule.released.set()

    def clear(self) -> None:
        """Remove every rule."""
        for rule in self._rules:
            rule.remove()

    def _use(self, rule: Rule) -> bool:
        with self._lock:
            if rule.remaining == 0:
                return False
            if rule.remaining is not None:
                rule.remaining -= 1
            rule.hits += 1
            if rule.remaining == 0 and not isinstance(rule.fault, Delay | Hang):
                self._rules = tuple(other for other in self._rules if other is not rule)
            return True

    def _forget(self, rule: Rule) -> None:
        with self._lock:
            self._rules = tuple(other for other in self._rules if other is not rule)
